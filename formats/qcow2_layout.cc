#include "formats/qcow2_layout.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>

namespace underlay {
namespace {

// Bits of L1 and L2 entries; the drawings in the header file.
constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kL1Reserved = 0x7f00'0000'0000'01ff;
constexpr uint64_t kL2Reserved = 0x3f00'0000'0000'01fe;
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kZeroFlag = 1;
constexpr uint64_t kHostOffsetBits = 56;

constexpr uint32_t kCompressedSectorBytes = 512;

// Types of header extensions.
constexpr uint32_t kEndOfExtensions = 0;
constexpr uint32_t kBackingFormat = 0xe2792aca;
constexpr uint32_t kDataFile = 0x44415441;
constexpr uint32_t kFeatureNames = 0x6803f857;
constexpr uint32_t kBitmaps = 0x23852875;
constexpr uint32_t kEncryption = 0x0537be77;
constexpr size_t kExtensionHeadBytes = 8;

// An entry of the feature name table: type, bit number, name padded with NUL.
constexpr size_t kFeatureEntryBytes = 48;
constexpr std::byte kIncompatibleFeature{0};

Failure at_byte(uint64_t offset, Failure failure) {
  failure.value().offset = offset;
  return failure;
}

template <class... Args>
Failure malformed(uint64_t offset, fmt::format_string<Args...> format, Args&&... args) {
  return at_byte(offset, fail(ErrorKind::kMalformed, format, std::forward<Args>(args)...));
}

// The fields as they stand. REQUIRES: `head` holds the header of its version.
Qcow2Header load_fields(ByteSpan head) {
  Qcow2Header header;
  header.version = load_be<uint32_t>(head, 4);
  header.backing_file_offset = load_be<uint64_t>(head, 8);
  header.backing_file_size = load_be<uint32_t>(head, 16);
  header.cluster_bits = load_be<uint32_t>(head, 20);
  header.size = load_be<uint64_t>(head, 24);
  header.crypt_method = load_be<uint32_t>(head, 32);
  header.l1_size = load_be<uint32_t>(head, 36);
  header.l1_table_offset = load_be<uint64_t>(head, 40);
  header.refcount_table_offset = load_be<uint64_t>(head, 48);
  header.refcount_table_clusters = load_be<uint32_t>(head, 56);
  header.nb_snapshots = load_be<uint32_t>(head, 60);
  header.snapshots_offset = load_be<uint64_t>(head, 64);
  header.header_length = Qcow2Header::kVersion2Bytes;
  if (header.version >= 3) {
    header.incompatible_features = load_be<uint64_t>(head, 72);
    header.autoclear_features = load_be<uint64_t>(head, 88);
    header.header_length = load_be<uint32_t>(head, 100);
  }
  return header;
}

Result<void> check_magic_and_length(ByteSpan head) {
  const bool magic = head.size() >= kQcow2Magic.size() &&
                     std::equal(kQcow2Magic.begin(), kQcow2Magic.end(), head.begin());
  if (!magic) return malformed(0, "does not begin with the qcow2 magic \"QFI\\xfb\": no qcow2");
  if (head.size() >= Qcow2Header::kVersion2Bytes) {
    const auto version = load_be<uint32_t>(head, 4);
    if (version != 2 && version != 3) {
      return at_byte(4, fail(ErrorKind::kUnsupported,
                             "version is {}: 2 and 3 are served; qemu-img convert makes such an "
                             "image of others",
                             version));
    }
    if (version == 2 || head.size() >= Qcow2Header::kVersion3Bytes) return {};
  }
  return fail(ErrorKind::kTruncated,
              "the file has {} bytes, fewer than a qcow2 header ({} in version 2, {} in version "
              "3): it is truncated",
              head.size(), Qcow2Header::kVersion2Bytes, Qcow2Header::kVersion3Bytes);
}

Result<void> check_geometry(const Qcow2Header& header) {
  if (header.cluster_bits < Qcow2Header::kMinClusterBits ||
      header.cluster_bits > Qcow2Header::kMaxClusterBits) {
    return malformed(20, "cluster_bits is {}: must be {} to {}; the header is damaged",
                     header.cluster_bits, Qcow2Header::kMinClusterBits,
                     Qcow2Header::kMaxClusterBits);
  }
  if (header.extended_l2() && header.cluster_bits < Qcow2Header::kMinExtendedL2ClusterBits) {
    return malformed(20, "cluster_bits is {} with extended L2 entries: must be {} or more",
                     header.cluster_bits, Qcow2Header::kMinExtendedL2ClusterBits);
  }
  if (header.version >= 3 &&
      (header.header_length < Qcow2Header::kVersion3Bytes || header.header_length % 8 != 0 ||
       header.header_length > header.cluster_size())) {
    return malformed(100, "header_length is {}: must be a multiple of 8 from {} to {} (a cluster)",
                     header.header_length, Qcow2Header::kVersion3Bytes, header.cluster_size());
  }
  return {};
}

// "compression_type": a type other than 0 comes with its incompatible bit, and only then.
Result<Codec> parse_codec(const Qcow2Header& header, ByteSpan head) {
  constexpr size_t kAt = 104;
  uint8_t type = 0;
  if (header.version >= 3 && header.header_length > kAt) {
    if (head.size() <= kAt) {
      return fail(ErrorKind::kTruncated, "the file ends inside its header, which has {} bytes",
                  header.header_length);
    }
    type = load_be<uint8_t>(head, kAt);
  }
  if (type > 1) {
    return at_byte(kAt, fail(ErrorKind::kUnsupported,
                             "compression_type is {}: 0 (zlib) and 1 (zstd) are served", type));
  }
  if ((type != 0) != header.has(Qcow2Header::kCompressionType)) {
    return malformed(kAt, "compression_type is {}, but incompatible feature bit 3 is {}", type,
                     header.has(Qcow2Header::kCompressionType) ? 1 : 0);
  }
  return type == 1 ? Codec::kZstd : Codec::kDeflate;
}

Result<void> check_backing_name(const Qcow2Header& header) {
  if (header.backing_file_offset == 0) return {};
  if (header.backing_file_offset < header.header_length ||
      header.backing_file_offset > header.cluster_size()) {
    return malformed(8,
                     "backing_file_offset is {}: must be {} (behind the header) to {} (in the "
                     "first cluster)",
                     header.backing_file_offset, header.header_length, header.cluster_size());
  }
  const uint64_t limit = std::min<uint64_t>(Qcow2Header::kMaxBackingNameBytes,
                                            header.cluster_size() - header.backing_file_offset);
  if (header.backing_file_size == 0 || header.backing_file_size > limit) {
    return malformed(16, "backing_file_size is {}: must be 1 to {}", header.backing_file_size,
                     limit);
  }
  return {};
}

Result<void> check_snapshot_table(const Qcow2Header& header) {
  if (header.nb_snapshots == 0) return {};
  if (header.nb_snapshots > Qcow2Header::kMaxSnapshots) {
    return at_byte(60, fail(ErrorKind::kLimit, "nb_snapshots is {}: the limit is {}",
                            header.nb_snapshots, Qcow2Header::kMaxSnapshots));
  }
  if (header.snapshots_offset == 0 || !is_aligned(header.snapshots_offset, header.cluster_size())) {
    return malformed(64, "snapshots_offset is {}: must be a multiple of {} (a cluster), not 0",
                     header.snapshots_offset, header.cluster_size());
  }
  return {};
}

// The name of an incompatible feature as the image's own table gives it, "" when it does not.
std::string_view feature_name(ByteSpan table, unsigned bit) {
  for (; table.size() >= kFeatureEntryBytes; table = table.subspan(kFeatureEntryBytes)) {
    if (table[0] != kIncompatibleFeature || table[1] != std::byte(bit)) continue;
    const std::string_view name = as_text(table.subspan(2, kFeatureEntryBytes - 2));
    return name.substr(0, name.find('\0'));
  }
  return "";
}

Result<Qcow2Cluster> parse_compressed(const Qcow2Header& header, uint64_t guest_offset,
                                      uint64_t entry) {
  const auto malformed_cluster = [&](std::string_view what) {
    return fail(ErrorKind::kMalformed, "L2 entry {:#x} of guest offset {}: {}", entry, guest_offset,
                what);
  };
  if (header.external_data()) {
    return malformed_cluster("a compressed cluster, which an image with a data file cannot have");
  }
  const uint32_t sector_field_bits = header.cluster_bits - 8;
  const uint32_t offset_bits = 62 - sector_field_bits;
  const uint64_t sectors = ((entry & ~(kCopied | kCompressed)) >> offset_bits) + 1;

  Qcow2Cluster cluster;
  cluster.compressed = true;
  cluster.host_offset = entry & ((uint64_t{1} << offset_bits) - 1);
  if (cluster.host_offset >> kHostOffsetBits != 0) {
    return malformed_cluster("its compressed data has an offset of more than 56 bits");
  }
  if (cluster.host_offset < header.cluster_size()) {
    return malformed_cluster("its compressed data lies in the header's cluster");
  }
  cluster.stored_length =
      sectors * kCompressedSectorBytes - cluster.host_offset % kCompressedSectorBytes;
  return cluster;
}

}  // namespace

Result<Qcow2Header> parse_qcow2_header(ByteSpan head) {
  TRY(check_magic_and_length(head));
  Qcow2Header header = load_fields(head);
  TRY(check_geometry(header));
  header.codec = TRY(parse_codec(header, head));
  TRY(check_backing_name(header));
  TRY(check_qcow2_l1(
      header,
      {.offset = header.l1_table_offset, .entries = header.l1_size, .disk_size = header.size}));
  TRY(check_snapshot_table(header));
  return header;
}

Result<Qcow2Extensions> parse_qcow2_extensions(const Qcow2Header& header, ByteSpan first_cluster) {
  uint64_t end = header.backing_file_offset != 0 ? header.backing_file_offset  //
                                                 : header.cluster_size();
  if (end > first_cluster.size()) end = first_cluster.size();
  Qcow2Extensions extensions;
  uint64_t at = header.header_length;
  while (range_within(at, kExtensionHeadBytes, end)) {
    const auto type = load_be<uint32_t>(first_cluster, at);
    const auto length = load_be<uint32_t>(first_cluster, at + 4);
    if (type == kEndOfExtensions) return extensions;
    if (!range_within(at + kExtensionHeadBytes, length, end)) {
      return malformed(at, "header extension {:#x} has {} bytes: only {} are left for it", type,
                       length, end - at - kExtensionHeadBytes);
    }
    const ByteSpan data = first_cluster.subspan(at + kExtensionHeadBytes, length);
    const bool again = (type == kBackingFormat && !extensions.backing_format.empty()) ||
                       (type == kDataFile && !extensions.data_file.empty()) ||
                       (type == kBitmaps && !extensions.bitmaps.empty()) ||
                       (type == kEncryption && !extensions.encryption.empty());
    if (again) return malformed(at, "header extension {:#x} stands twice", type);
    if (type == kBackingFormat) extensions.backing_format = as_text(data);
    if (type == kDataFile) extensions.data_file = as_text(data);
    if (type == kFeatureNames) extensions.feature_names = data;
    if (type == kBitmaps) extensions.bitmaps = data;
    if (type == kEncryption) extensions.encryption = data;
    at += kExtensionHeadBytes + (uint64_t{length} + 7) / 8 * 8;
  }
  return extensions;
}

Result<std::optional<std::string_view>> parse_qcow2_backing_name(const Qcow2Header& header,
                                                                 ByteSpan first_cluster) {
  if (header.backing_file_offset == 0) return std::nullopt;
  if (!range_within(header.backing_file_offset, header.backing_file_size, first_cluster.size())) {
    return at_byte(header.backing_file_offset,
                   fail(ErrorKind::kTruncated,
                        "the backing file name lies beyond the end of the file: it is truncated"));
  }
  return as_text(first_cluster.subspan(static_cast<size_t>(header.backing_file_offset),
                                       header.backing_file_size));
}

Result<void> check_qcow2_supported(const Qcow2Header& header, const Qcow2Extensions& extensions) {
  const uint64_t unknown = header.incompatible_features & ~Qcow2Header::kKnownIncompatible;
  if (unknown != 0) {
    const auto bit = static_cast<unsigned>(std::countr_zero(unknown));
    const std::string_view name = feature_name(extensions.feature_names, bit);
    return at_byte(72, fail(ErrorKind::kUnsupported,
                            "incompatible feature bit {} (\"{}\") is set: it is not supported; "
                            "qemu-img convert makes an image without it",
                            bit, name.empty() ? "unnamed" : printable(name)));
  }
  if (header.crypt_method != Qcow2Header::kLuks && !extensions.encryption.empty()) {
    return at_byte(32,
                   fail(ErrorKind::kMalformed,
                        "crypt_method is {}, but a header extension tells where its LUKS header "
                        "lies: only images with crypt_method 2 have one",
                        header.crypt_method));
  }
  return {};
}

Result<void> check_qcow2_l1(const Qcow2Header& header, const Qcow2L1& l1) {
  constexpr uint64_t kMaxEntries = Qcow2Header::kMaxL1Bytes / 8;
  if (l1.entries > kMaxEntries) {
    return at_byte(36, fail(ErrorKind::kLimit, "l1_size is {} entries: the limit is {}", l1.entries,
                            kMaxEntries));
  }
  const uint64_t needed = div_round_up(l1.disk_size, header.l2_span());
  if (l1.entries < needed) {
    return malformed(36, "l1_size is {} entries: {} bytes of disk need {}; the header is damaged",
                     l1.entries, l1.disk_size, needed);
  }
  if (l1.entries == 0) return {};
  constexpr auto kMaxOffset = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (l1.offset == 0 || !is_aligned(l1.offset, header.cluster_size()) ||
      !range_within(l1.offset, l1.bytes(), kMaxOffset)) {
    return malformed(40,
                     "l1_table_offset is {}: must be a multiple of {} (a cluster), not 0, and "
                     "below 2^63",
                     l1.offset, header.cluster_size());
  }
  return {};
}

Result<Qcow2Snapshot> parse_qcow2_snapshot(ByteSpan bytes) {
  assert(bytes.size() >= Qcow2Snapshot::kFixedBytes);
  Qcow2Snapshot snapshot;
  snapshot.l1_table_offset = load_be<uint64_t>(bytes, 0);
  snapshot.l1_size = load_be<uint32_t>(bytes, 8);
  snapshot.id_bytes = load_be<uint16_t>(bytes, 12);
  snapshot.name_bytes = load_be<uint16_t>(bytes, 14);
  snapshot.extra_bytes = load_be<uint32_t>(bytes, 36);
  if (snapshot.extra_bytes > Qcow2Snapshot::kMaxExtraBytes) {
    return fail(ErrorKind::kLimit, "a snapshot has {} bytes of extra data: the limit is {}",
                snapshot.extra_bytes, Qcow2Snapshot::kMaxExtraBytes);
  }
  return snapshot;
}

// "Snapshots": version 3 must state the disk's size; version 2 images had none to state.
Result<uint64_t> parse_qcow2_snapshot_disk_size(const Qcow2Header& header, ByteSpan extra) {
  constexpr size_t kDiskSizeAt = 8;
  if (extra.size() >= kDiskSizeAt + 8) return load_be<uint64_t>(extra, kDiskSizeAt);
  if (header.version == 2) return header.size;
  return fail(ErrorKind::kMalformed,
              "a snapshot has {} bytes of extra data: version 3 needs 16, with the disk's size; "
              "qemu-img check -r all repairs it",
              extra.size());
}

Result<uint64_t> parse_qcow2_l1_entry(const Qcow2Header& header, uint64_t entry) {
  const uint64_t offset = entry & kOffsetMask;
  if ((entry & kL1Reserved) != 0) {
    return fail(ErrorKind::kMalformed, "L1 entry {:#x} has reserved bits set: it is damaged",
                entry);
  }
  if (!is_aligned(offset, header.cluster_size())) {
    return fail(ErrorKind::kMalformed,
                "L1 entry {:#x} names an L2 table at no multiple of {} (a cluster): it is damaged",
                entry, header.cluster_size());
  }
  return offset;
}

Result<Qcow2Cluster> parse_qcow2_l2_entry(const Qcow2Header& header, uint64_t guest_offset,
                                          uint64_t entry, uint64_t bitmap) {
  if ((entry & kCompressed) != 0) return parse_compressed(header, guest_offset, entry);

  const auto malformed_cluster = [&](std::string_view what) {
    return fail(ErrorKind::kMalformed, "L2 entry {:#x} of guest offset {}: {}", entry, guest_offset,
                what);
  };
  const bool zero_flag = (entry & kZeroFlag) != 0;
  if ((entry & kL2Reserved) != 0 || (zero_flag && header.extended_l2())) {
    return malformed_cluster("has reserved bits set");
  }
  if (zero_flag && header.version < 3) {
    return malformed_cluster("a zero cluster, which version 2 does not have");
  }
  Qcow2Cluster cluster;
  cluster.host_offset = entry & kOffsetMask;
  if (!is_aligned(cluster.host_offset, header.cluster_size())) {
    return malformed_cluster("its cluster does not lie at a multiple of the cluster size");
  }
  // In a data file offset 0 is a place as any other; "copied" then tells that it is meant.
  const bool data_file_start = header.external_data() && (entry & kCopied) != 0;
  cluster.reserved = cluster.host_offset != 0 || data_file_start;
  if (header.external_data() && cluster.reserved && !(zero_flag && cluster.host_offset == 0) &&
      cluster.host_offset != guest_offset) {
    return malformed_cluster("its offset in the data file is not its guest offset");
  }

  if (!header.extended_l2()) {
    cluster.zeros = zero_flag ? ~uint32_t{0} : 0;
    cluster.stored = !zero_flag && cluster.reserved ? ~uint32_t{0} : 0;
    return cluster;
  }
  cluster.stored = static_cast<uint32_t>(bitmap);
  cluster.zeros = static_cast<uint32_t>(bitmap >> 32);
  if ((cluster.stored & cluster.zeros) != 0) {
    return malformed_cluster("a subcluster is both allocated and zeros");
  }
  if (cluster.stored != 0 && !cluster.reserved) {
    return malformed_cluster("subclusters are allocated, but the cluster is not");
  }
  return cluster;
}

// Version, cluster_bits, l1_size and l1_table_offset must all be right: a raw disk does not look
// like that by chance.
bool resembles_qcow2(ByteSpan head) {
  if (head.size() < Qcow2Header::kVersion3Bytes) return false;
  int right = 0;
  for (size_t i = 0; i < kQcow2Magic.size(); ++i) right += head[i] == kQcow2Magic[i] ? 1 : 0;
  if (right != 3) return false;
  const auto version = load_be<uint32_t>(head, 4);
  if (version != 2 && version != 3) return false;
  const Qcow2Header header = load_fields(head);
  return check_geometry(header) && check_qcow2_l1(header, {.offset = header.l1_table_offset,
                                                           .entries = header.l1_size,
                                                           .disk_size = header.size});
}

}  // namespace underlay
