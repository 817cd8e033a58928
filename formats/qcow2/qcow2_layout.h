// The on-disk layout of qcow2, as docs/interop/qcow2.txt (QEMU) specifies it: bytes in, checked
// host-order values out. No I/O. All integers are big-endian.
//
// Header ("Header" and "Additional fields"); version 2 ends at byte 72:
//      0  4 magic "QFI\xfb"               60  4 nb_snapshots
//      4  4 version (2, 3)                64  8 snapshots_offset
//      8  8 backing_file_offset           72  8 incompatible_features
//     16  4 backing_file_size             80  8 compatible_features
//     20  4 cluster_bits                  88  8 autoclear_features
//     24  8 size                          96  4 refcount_order
//     32  4 crypt_method                 100  4 header_length (>= 104, multiple of 8)
//     36  4 l1_size (entries)            104  1 compression_type (when header_length > 104)
//     40  8 l1_table_offset
//     48  8 refcount_table_offset
//     56  4 refcount_table_clusters
//
// Header extensions ("Header extensions"): from header_length to the backing file name or the end
// of the first cluster, each  0 4 type | 4 4 length | 8 data, padded to a multiple of 8.
//
// Snapshot table entry ("Snapshots"), padded to a multiple of 8:
//      0  8 l1_table_offset               24  8 vm clock
//      8  4 l1_size (entries)             32  4 vm state size
//     12  2 length of the id              36  4 length of the extra data
//     14  2 length of the name            40    extra data, id, name; extra data:
//     16  4 date, seconds                        0 8 vm state size | 8 8 disk size |
//     20  4 date, nanoseconds                   16 8 icount | ...
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/codec.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

struct Qcow2Header {
  static constexpr size_t kVersion2Bytes = 72;
  static constexpr size_t kVersion3Bytes = 104;  // at least
  static constexpr size_t kKnownBytes = 112;     // every field that is read here lies within
  static constexpr uint32_t kMinClusterBits = 9;
  static constexpr uint32_t kMaxClusterBits = 21;            // QEMU's limit, 2 MiB
  static constexpr uint32_t kMinExtendedL2ClusterBits = 14;  // subclusters of 512 bytes
  static constexpr uint32_t kMaxBackingNameBytes = 1023;
  static constexpr uint64_t kMaxL1Bytes = 32 << 20;  // QEMU's limit
  static constexpr uint32_t kMaxSnapshots = 65536;   // QEMU's limit

  // Values of crypt_method.
  static constexpr uint32_t kNotEncrypted = 0;
  static constexpr uint32_t kAes = 1;
  static constexpr uint32_t kLuks = 2;

  // Bits of incompatible_features.
  static constexpr uint64_t kDirty = 1 << 0;
  static constexpr uint64_t kCorrupt = 1 << 1;
  static constexpr uint64_t kExternalData = 1 << 2;
  static constexpr uint64_t kCompressionType = 1 << 3;
  static constexpr uint64_t kExtendedL2 = 1 << 4;
  static constexpr uint64_t kKnownIncompatible = (1 << 5) - 1;
  // Of compatible_features.
  static constexpr uint64_t kLazyRefcounts = 1 << 0;
  // Bits of autoclear_features.
  static constexpr uint64_t kBitmaps = 1 << 0;
  static constexpr uint64_t kRawExternalData = 1 << 1;

  // Of refcount_order: a refcount has 2^refcount_order bits.
  static constexpr uint32_t kMaxRefcountOrder = 6;

  uint32_t version = 0;
  uint64_t backing_file_offset = 0;
  uint32_t backing_file_size = 0;
  uint32_t cluster_bits = 0;
  uint64_t size = 0;
  uint32_t crypt_method = 0;
  uint32_t l1_size = 0;
  uint64_t l1_table_offset = 0;
  uint64_t refcount_table_offset = 0;
  uint32_t refcount_table_clusters = 0;
  uint32_t nb_snapshots = 0;
  uint64_t snapshots_offset = 0;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t refcount_order = 4;
  uint32_t header_length = 0;
  uint8_t compression_type = 0;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  bool has(uint64_t incompatible_bit) const {
    return (incompatible_features & incompatible_bit) != 0;
  }
  // Of the two that are served.
  Codec codec() const { return compression_type == 1 ? Codec::kZstd : Codec::kDeflate; }
  bool extended_l2() const { return has(kExtendedL2); }
  bool external_data() const { return has(kExternalData); }
  uint32_t l2_entry_bytes() const { return extended_l2() ? 16 : 8; }
  uint64_t l2_entries() const { return cluster_size() / l2_entry_bytes(); }
  // Guest bytes that one L2 table maps; at most 2^39.
  uint64_t l2_span() const { return l2_entries() * cluster_size(); }
};

// Checks what one field says, and what fields say of each other; not what lies where in the file,
// and not whether the features are supported. `head`: the start of the file, kKnownBytes or all.
Result<Qcow2Header> parse_qcow2_header(ByteSpan head);

// The same without any check: the fields as they stand, those of unknown versions as in version 3.
// Fails only when `head` is no header of qcow2, or not all of one.
Result<Qcow2Header> load_qcow2_header(ByteSpan head);

// What parse_qcow2_header() demands of the fields, for those who look into images that break it.
struct Qcow2HeaderRule {
  std::string_view name;
  Result<void> (*check)(const Qcow2Header&) = nullptr;
  bool is_basis = false;  // of the rules behind it, and of everything that is computed
};
std::span<const Qcow2HeaderRule> qcow2_header_rules();

// What the header extensions say. The views live as long as the bytes they were parsed from, and
// hold text of the image.
struct Qcow2Extensions {
  std::string_view backing_format;  // "": not stated
  std::string_view data_file;       // "": not stated
  ByteSpan feature_names;           // the feature name table
  ByteSpan bitmaps;                 // the bitmaps extension (qcow2_bitmap_layout.h)
  ByteSpan encryption;              // the full disk encryption header pointer
};

// `first_cluster`: the start of the file, a whole cluster unless the file is shorter.
Result<Qcow2Extensions> parse_qcow2_extensions(const Qcow2Header& header, ByteSpan first_cluster);

// One header extension.
struct Qcow2Extension {
  // Values of `type`.
  static constexpr uint32_t kEnd = 0;
  static constexpr uint32_t kBackingFormat = 0xe2792aca;
  static constexpr uint32_t kDataFile = 0x44415441;
  static constexpr uint32_t kFeatureNames = 0x6803f857;
  static constexpr uint32_t kBitmaps = 0x23852875;
  static constexpr uint32_t kEncryption = 0x0537be77;

  uint64_t offset = 0;  // in the file
  uint32_t type = 0;
  ByteSpan data;
};

// Walks the header extensions, one by one.
class Qcow2ExtensionWalk {
 public:
  // The spans live as long as `first_cluster`, which is as in parse_qcow2_extensions().
  Qcow2ExtensionWalk(const Qcow2Header& header, ByteSpan first_cluster);
  // nullopt behind the last one. Not to be called again after a failure.
  Result<std::optional<Qcow2Extension>> next();

 private:
  ByteSpan area_;  // from the start of the file
  uint64_t at_;
};

// Takes what the extension says into `extensions`. Fails when it says so for the second time.
Result<void> take_qcow2_extension(const Qcow2Extension& extension, Qcow2Extensions& extensions);

// The kinds of features, as the feature name table has them.
enum class Qcow2FeatureKind : uint8_t { kIncompatible = 0, kCompatible = 1, kAutoclear = 2 };

// A feature's name as the image's own table gives it, "" when it does not.
std::string_view qcow2_feature_name(ByteSpan table, Qcow2FeatureKind kind, unsigned bit);

// The backing file's name, nullopt when there is no backing file.
Result<std::optional<std::string_view>> parse_qcow2_backing_name(const Qcow2Header& header,
                                                                 ByteSpan first_cluster);

// Fails with kUnsupported, naming the feature, when the content cannot be read rightly without
// knowing more than this reader does.
Result<void> check_qcow2_supported(const Qcow2Header& header, const Qcow2Extensions& extensions);

// An L1 table, and the disk that it maps: the active one's or a snapshot's.
struct Qcow2L1 {
  uint64_t offset = 0;
  uint32_t entries = 0;
  uint64_t disk_size = 0;

  uint64_t bytes() const { return uint64_t{entries} * 8; }
};

// Fails when the table cannot be one: its place, its size, or too few entries for the disk.
Result<void> check_qcow2_l1(const Qcow2Header& header, const Qcow2L1& l1);

// The fixed part of a snapshot table entry.
struct Qcow2Snapshot {
  static constexpr size_t kFixedBytes = 40;
  static constexpr size_t kMaxExtraBytes = 1024;                      // QEMU's limit
  static constexpr uint64_t kMaxTableBytes = 65536 * uint64_t{1024};  // QEMU's limit

  uint64_t l1_table_offset = 0;
  uint32_t l1_size = 0;
  uint16_t id_bytes = 0;
  uint16_t name_bytes = 0;
  uint32_t date_sec = 0;  // since 1970
  uint32_t date_nsec = 0;
  uint64_t vm_clock_nsec = 0;
  uint32_t vm_state_size = 0;  // bytes, unless the extra data has it
  uint32_t extra_bytes = 0;

  size_t variable_bytes() const { return size_t{extra_bytes} + id_bytes + name_bytes; }
  // To the next entry.
  size_t total_bytes() const { return (kFixedBytes + variable_bytes() + 7) / 8 * 8; }
};

// REQUIRES: bytes.size() >= kFixedBytes. Fails when the extra data is above its limit.
Result<Qcow2Snapshot> parse_qcow2_snapshot(ByteSpan bytes);

// The size of the disk when the snapshot was taken. REQUIRES: `extra` is the entry's extra data.
Result<uint64_t> parse_qcow2_snapshot_disk_size(const Qcow2Header& header, ByteSpan extra);

inline constexpr std::array kQcow2Magic = {std::byte{'Q'}, std::byte{'F'}, std::byte{'I'},
                                           std::byte{0xfb}};

// Is `head`, whose magic has one wrong byte, a qcow2 header otherwise?
bool resembles_qcow2(ByteSpan head);

}  // namespace underlay
