// The on-disk layout of qcow2's persistent dirty bitmaps, as docs/interop/qcow2.txt (QEMU)
// specifies it: bytes in, checked host-order values out. No I/O. All integers are big-endian, the
// bits of a bitmap begin with the least significant one of each byte.
//
// Header extension 0x23852875 ("Bitmaps extension"), valid while bit 0 of autoclear_features is:
//      0  4 nb_bitmaps                     8  8 bitmap_directory_size (bytes)
//      4  4 reserved, zeros               16  8 bitmap_directory_offset
//
// Entry of the bitmap directory ("Bitmap directory"), padded to a multiple of 8:
//      0  8 bitmap_table_offset           17  1 granularity_bits
//      8  4 bitmap_table_size (entries)   18  2 name_size
//     12  4 flags                         20  4 extra_data_size
//     16  1 type (1: dirty bitmap)        24    extra data, name
//   flags: 31-3 reserved | 2 extra data may be ignored | 1 auto | 0 in use
//
// Entry of a bitmap table ("Bitmap table"):
//     63-56 reserved | 55-9 offset of a cluster of bits | 8-1 reserved | 0 without an offset: the
//     value of all its bits; else reserved
#pragma once

#include <cstdint>

#include "formats/qcow2/qcow2_layout.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

struct Qcow2BitmapsExtension {
  static constexpr uint32_t kMaxBitmaps = 65535;                         // QEMU's limit
  static constexpr uint64_t kMaxDirectoryBytes = kMaxBitmaps * 1024ull;  // QEMU's limit

  uint32_t nb_bitmaps = 0;
  uint64_t bitmap_directory_size = 0;
  uint64_t bitmap_directory_offset = 0;
};

// `data`: the extension's.
Result<Qcow2BitmapsExtension> parse_qcow2_bitmaps_extension(const Qcow2Header& header,
                                                            ByteSpan data);

// The fixed part of a directory entry.
struct Qcow2BitmapEntry {
  static constexpr size_t kFixedBytes = 24;
  static constexpr uint32_t kMinGranularityBits = 9;
  static constexpr uint32_t kMaxGranularityBits = 31;  // QEMU's limit, 2 GiB
  static constexpr uint32_t kMaxNameBytes = 1023;      // QEMU's limit
  static constexpr uint32_t kMaxExtraBytes = 1024;
  static constexpr uint64_t kMaxBitmapBytes = 512ull << 20;  // QEMU's limit

  // Bits of flags.
  static constexpr uint32_t kInUse = 1 << 0;
  static constexpr uint32_t kAuto = 1 << 1;
  static constexpr uint32_t kExtraDataCompatible = 1 << 2;
  static constexpr uint32_t kKnownFlags = (1 << 3) - 1;

  uint64_t bitmap_table_offset = 0;
  uint32_t bitmap_table_size = 0;
  uint32_t flags = 0;
  uint8_t type = 0;
  uint8_t granularity_bits = 0;
  uint16_t name_size = 0;
  uint32_t extra_data_size = 0;

  size_t variable_bytes() const { return size_t{extra_data_size} + name_size; }
  // To the next entry.
  size_t total_bytes() const { return (kFixedBytes + variable_bytes() + 7) / 8 * 8; }
  uint64_t table_bytes() const { return uint64_t{bitmap_table_size} * 8; }
};

// Checks what is needed to find the next entry. REQUIRES: bytes.size() >= kFixedBytes.
Result<Qcow2BitmapEntry> parse_qcow2_bitmap_entry(ByteSpan bytes);

// Can the bitmap be used for the disk? Fails when it is inconsistent or not of a known kind, and
// when its table cannot be one.
Result<void> check_qcow2_bitmap(const Qcow2Header& header, const Qcow2BitmapEntry& entry);

// What an entry of a bitmap table says.
struct Qcow2BitmapCluster {
  uint64_t host_offset = 0;  // of the cluster of bits; 0: all of them are `value`
  bool value = false;
};
Result<Qcow2BitmapCluster> parse_qcow2_bitmap_table_entry(const Qcow2Header& header,
                                                          uint64_t entry);

}  // namespace underlay
