#include "tools/img/qcow2_size.h"

#include <array>
#include <bit>
#include <limits>

#include "formats/options/option_values.h"
#include "io/bytes.h"
#include "tools/img/creation_options.h"
#include "tools/img/luks_size.h"

namespace underlay::img {
namespace {

using Type = CreationKey::Type;

// Sizes and limits of the format (QEMU's docs/interop/qcow2.txt), and QEMU's own limit for L1
// tables.
constexpr uint64_t kSmallestCluster = 512;
constexpr uint64_t kLargestCluster = 2 << 20;
constexpr uint64_t kSmallestExtendedCluster = 16 << 10;
constexpr uint64_t kMaxL1Bytes = 32 << 20;
constexpr uint64_t kTableEntry = 8;  // of L1, L2 and refcount tables
constexpr uint64_t kExtendedL2Entry = 16;
constexpr uint64_t kBitmapDirectoryEntry = 24;  // without the name
constexpr uint64_t kLargestFile = std::numeric_limits<int64_t>::max();

constexpr std::array kKeys{CreationKey{"size", Type::kSize},
                           CreationKey{"compat"},
                           CreationKey{"backing_file"},
                           CreationKey{"backing_fmt"},
                           CreationKey{"data_file"},
                           CreationKey{"data_file_raw", Type::kSwitch},
                           CreationKey{"encryption", Type::kSwitch},
                           CreationKey{"encrypt.format"},
                           CreationKey{"encrypt.key-secret"},
                           CreationKey{"encrypt.cipher-alg"},
                           CreationKey{"encrypt.cipher-mode"},
                           CreationKey{"encrypt.ivgen-alg"},
                           CreationKey{"encrypt.ivgen-hash-alg"},
                           CreationKey{"encrypt.hash-alg"},
                           CreationKey{"encrypt.iter-time", Type::kNumber},
                           CreationKey{"cluster_size", Type::kSize},
                           CreationKey{"preallocation"},
                           CreationKey{"lazy_refcounts", Type::kSwitch},
                           CreationKey{"refcount_bits", Type::kNumber},
                           CreationKey{"compression_type"},
                           CreationKey{"extended_l2", Type::kSwitch},
                           CreationKey{"nocow", Type::kSwitch},
                           CreationKey{"extent_size_hint", Type::kSize}};

struct Shape {
  uint64_t cluster = 0;  // bytes
  uint64_t refcount_bits = 0;
  uint64_t l2_entry = 0;  // bytes
  bool is_version3 = false;
};

Result<Shape> shape_of(const CreationOptions& options) {
  Shape shape;
  const std::string compat = options.text("compat", "1.1");
  TRY(check_one_of("-o compat", compat, {"0.10", "1.1"}));
  shape.is_version3 = compat == "1.1";
  shape.cluster = options.number("cluster_size", 64 << 10);
  if (!std::has_single_bit(shape.cluster) || shape.cluster < kSmallestCluster ||
      shape.cluster > kLargestCluster) {
    return fail(ErrorKind::kUsage,
                "-o cluster_size: must be a power of two between 512 and 2048k, not {}",
                shape.cluster);
  }
  const bool extended = options.is_on("extended_l2");
  if (extended && shape.cluster < kSmallestExtendedCluster) {
    return fail(ErrorKind::kUsage,
                "-o extended_l2: needs a cluster_size of at least {} bytes, not {}",
                kSmallestExtendedCluster, shape.cluster);
  }
  shape.l2_entry = extended ? kExtendedL2Entry : kTableEntry;
  shape.refcount_bits = options.number("refcount_bits", 16);
  if (!std::has_single_bit(shape.refcount_bits) || shape.refcount_bits > 64) {
    return fail(ErrorKind::kUsage,
                "-o refcount_bits: must be a power of two and at most 64, not {}",
                shape.refcount_bits);
  }
  if (shape.refcount_bits != 16 && !shape.is_version3) {
    return fail(ErrorKind::kUsage, "-o refcount_bits: other widths than 16 need compat=1.1");
  }
  return shape;
}

// Bytes of refcount blocks and tables. They count themselves, too, so the number of blocks grows
// until it is enough.
uint64_t refcount_bytes(uint64_t clusters, const Shape& shape) {
  const uint64_t counts_in_block = shape.cluster * 8 / shape.refcount_bits;
  const uint64_t blocks_in_table = shape.cluster / kTableEntry;
  uint64_t taken = 0;
  for (;;) {
    const uint64_t blocks = div_round_up(clusters + taken, counts_in_block);
    const uint64_t needed = blocks + div_round_up(blocks, blocks_in_table);
    if (needed == taken) return taken * shape.cluster;
    taken = needed;
  }
}

// Bytes of the header and all tables of a disk of `size` bytes, whole clusters. REQUIRES: the L1
// table is within its limit.
uint64_t metadata_bytes(uint64_t size, const Shape& shape) {
  const uint64_t clusters = size / shape.cluster;
  const uint64_t l2_tables = div_round_up(clusters, shape.cluster / shape.l2_entry);
  const uint64_t l1_clusters = div_round_up(l2_tables, shape.cluster / kTableEntry);
  const uint64_t tables = 1 + l2_tables + l1_clusters;
  return tables * shape.cluster + refcount_bytes(tables + clusters, shape);
}

Result<uint64_t> size_in_clusters(uint64_t size, const Shape& shape) {
  const auto whole = round_up(size, shape.cluster);
  const uint64_t l2_tables = div_round_up(size, shape.cluster * (shape.cluster / shape.l2_entry));
  if (whole && *whole <= kLargestFile && l2_tables * kTableEntry <= kMaxL1Bytes) return *whole;
  return fail(ErrorKind::kUsage,
              "a disk of {} bytes is too large for the format with clusters of {} bytes: say a "
              "larger -o cluster_size",
              size, shape.cluster);
}

// What the LUKS header takes in front of the data.
Result<uint64_t> encryption_bytes(const CreationOptions& options, const Shape& shape) {
  const std::string format = options.text("encrypt.format", "aes");
  TRY(check_one_of("-o encrypt.format", format, {"aes", "luks"}));
  if (format != "luks") return 0;
  const uint64_t header =
      TRY(luks_header_bytes(options.text("encrypt.cipher-alg", kUsualLuksCipher),
                            options.text("encrypt.cipher-mode", kUsualLuksMode)));
  return round_up(header, shape.cluster).value();
}

// Of the bitmaps as if all their bits were set, their tables, and the directory.
uint64_t bitmaps_bytes(const std::vector<BitmapToStore>& bitmaps, uint64_t disk_size,
                       const Shape& shape) {
  uint64_t clusters = 0;
  uint64_t directory = 0;
  for (const BitmapToStore& bitmap : bitmaps) {
    const uint64_t bytes = div_round_up(div_round_up(disk_size, bitmap.granularity), 8);
    const uint64_t of_bits = div_round_up(bytes, shape.cluster);
    clusters += of_bits + div_round_up(of_bits * kTableEntry, shape.cluster);
    directory += round_up(kBitmapDirectoryEntry + bitmap.name.size(), 8).value();
  }
  return (clusters + div_round_up(directory, shape.cluster)) * shape.cluster;
}

}  // namespace

Result<ImageSize> qcow2_size(const std::vector<std::string>& given, const DiskToStore& disk) {
  const CreationOptions options = TRY(CreationOptions::parse(given, "qcow2", kKeys));
  const std::string preallocation = options.text("preallocation", "off");
  TRY(check_one_of("-o preallocation", preallocation, {"off", "metadata", "falloc", "full"}));
  const Shape shape = TRY(shape_of(options));
  const uint64_t encryption = TRY(encryption_bytes(options, shape));
  const uint64_t whole = TRY(size_in_clusters(disk.size, shape));
  const uint64_t metadata = encryption + metadata_bytes(whole, shape);

  ImageSize size{.fully_allocated = metadata + whole};
  // What a backing file has of the data is not known: perhaps nothing.
  const bool all = preallocation == "full" || preallocation == "falloc" ||
                   (disk.data_bytes && options.has("backing_file"));
  // The metadata counts in full in any case, as qemu-img counts it.
  size.required = metadata;
  if (all) {
    size.required += whole;
  } else if (disk.data_bytes) {
    size.required += TRY(disk.data_bytes(shape.cluster));
  }
  if (disk.bitmaps && shape.is_version3) {
    size.bitmaps = bitmaps_bytes(*disk.bitmaps, disk.size, shape);
  }
  return size;
}

}  // namespace underlay::img
