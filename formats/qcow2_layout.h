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
// L1 entry ("L1 table entry"):     63 copied | 62-56 reserved | 55-9 offset of L2 | 8-0 reserved
// L2 entry ("L2 table entry"):     63 copied | 62 compressed | 61-0 descriptor
//   standard cluster descriptor:   61-56 reserved | 55-9 offset of cluster | 8-1 reserved | 0 zeros
//   compressed cluster descriptor: 61-x sectors behind the first | (x-1)-0 offset in bytes,
//                                  x = 62 - (cluster_bits - 8)
//   extended L2 ("Extended L2 Entries") adds 8 bytes: 63-32 subcluster reads as zeros | 31-0
//   subcluster is allocated. Bit 0 of its first half is reserved.
//
// Snapshot table entry ("Snapshots"), padded to a multiple of 8:
//      0  8 l1_table_offset               24  8 vm clock
//      8  4 l1_size (entries)             32  4 vm state size
//     12  2 length of the id              36  4 length of the extra data
//     14  2 length of the name            40    extra data, id, name; extra data:
//     16  8 date                                 0 8 vm state size | 8 8 disk size | ...
#pragma once

#include <array>
#include <cstdint>
#include <optional>
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
  // Bits of autoclear_features.
  static constexpr uint64_t kBitmaps = 1 << 0;
  static constexpr uint64_t kRawExternalData = 1 << 1;

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
  uint64_t autoclear_features = 0;
  uint32_t header_length = 0;
  Codec codec = Codec::kDeflate;

  uint64_t cluster_size() const { return uint64_t{1} << cluster_bits; }
  bool has(uint64_t incompatible_bit) const {
    return (incompatible_features & incompatible_bit) != 0;
  }
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
  uint32_t extra_bytes = 0;

  size_t variable_bytes() const { return size_t{extra_bytes} + id_bytes + name_bytes; }
  // To the next entry.
  size_t total_bytes() const { return (kFixedBytes + variable_bytes() + 7) / 8 * 8; }
};

// REQUIRES: bytes.size() >= kFixedBytes. Fails when the extra data is above its limit.
Result<Qcow2Snapshot> parse_qcow2_snapshot(ByteSpan bytes);

// The size of the disk when the snapshot was taken. REQUIRES: `extra` is the entry's extra data.
Result<uint64_t> parse_qcow2_snapshot_disk_size(const Qcow2Header& header, ByteSpan extra);

// Where the L2 table of an L1 entry lies, a multiple of the cluster size; 0 when there is none.
Result<uint64_t> parse_qcow2_l1_entry(const Qcow2Header& header, uint64_t entry);

// One cluster, in kSubclusters parts. Without extended L2 entries all parts are alike.
struct Qcow2Cluster {
  static constexpr uint32_t kSubclusters = 32;

  bool compressed = false;     // then host_offset and stored_length tell all
  bool reserved = false;       // has a place of its own in the file, also where it reads as zeros
  uint32_t stored = 0;         // bit i: part i is data, at its place in the host cluster
  uint32_t zeros = 0;          // bit i: part i is zeros. In neither mask: the backing file's
  uint64_t host_offset = 0;    // of the cluster; compressed: of the first byte of the stream
  uint64_t stored_length = 0;  // compressed: bytes of whole sectors, may reach past the file's end
};

// `guest_offset`: of the cluster's first byte. `bitmap`: the second half of an extended L2 entry.
Result<Qcow2Cluster> parse_qcow2_l2_entry(const Qcow2Header& header, uint64_t guest_offset,
                                          uint64_t entry, uint64_t bitmap);

inline constexpr std::array kQcow2Magic = {std::byte{'Q'}, std::byte{'F'}, std::byte{'I'},
                                           std::byte{0xfb}};

// Is `head`, whose magic has one wrong byte, a qcow2 header otherwise?
bool resembles_qcow2(ByteSpan head);

}  // namespace underlay
