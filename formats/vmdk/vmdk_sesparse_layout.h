// The headers and entries of a space-efficient sparse extent ("seSparse", ESX snapshots since
// vSphere 5 and all on VMFS 6): bytes in, checked host-order values out. Pure.
//
// VMware has not published this format; the fields are those of QEMU's block/vmdk.c
// (VMDKSESparseConstHeader, VMDKSESparseVolatileHeader, get_cluster_offset). All integers are
// little-endian u64; offsets and sizes are in sectors of 512 bytes.
//
//   constant header, sector 0                 volatile header, at volatile_header_offset
//     0 magic 0xcafebabe                        0 magic 0xcafecafe
//     8 version 0x0000000200000001              8 free_gt_number
//    16 capacity                               16 next_txn_seq_number
//    24 grain_size (8)                         24 replay_journal
//    32 grain_table_size (64)                  32 zeros up to 512
//    40 flags (0)
//    48 reserved1 to reserved4 (0)            grain directory entry
//    80 volatile_header_offset, _size           0                       no table
//    96 journal_header_offset, _size            0x10000000 << 32 | n    table n, counted from
//   112 journal_offset, _size                                           grain_tables_offset
//   128 grain_dir_offset, _size
//   144 grain_tables_offset, _size          grain table entry, by its top four bits
//   160 free_bitmap_offset, _size             0 (all of it)           not in this extent
//   176 backmap_offset, _size                 1                       unmapped by the guest, zeros
//   192 grains_offset, _size                  2                       zeros
//   208 zeros up to 512                       3                       stored
//
// A stored grain's number, counted from grains_offset: bits 48 to 59 of its entry are the lowest 12
// bits of it, bits 0 to 47 those above.
#pragma once

#include <cstdint>
#include <optional>

#include "formats/file_range.h"
#include "formats/vmdk/vmdk_geometry.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

inline constexpr uint64_t kSeSparseGrainSectors = 8;
inline constexpr uint64_t kSeSparseTableSectors = 64;
inline constexpr uint64_t kSeSparseGtesPerGt = 4096;

// Sectors of a file.
struct SeSparseRegion {
  uint64_t offset = 0;  // at most kVmdkMaxSectors, as their sum is
  uint64_t size = 0;
};

// Fields that were checked against each other and the limits, not yet against the file's size.
struct SeSparseHeader {
  uint64_t capacity = 0;
  SeSparseRegion volatile_header;
  SeSparseRegion grain_dir;     // large enough for the capacity
  SeSparseRegion grain_tables;  // of all the header's regions, none overlaps another
  uint64_t grains_offset = 0;   // behind them all
};

// REQUIRES nothing: any bytes, of which the first sector is the header. kUnsupported for what no
// known writer has written.
Result<SeSparseHeader> parse_se_sparse_header(ByteSpan bytes);

// Of the sector at volatile_header. kUnsupported when the journal must be replayed.
Result<void> check_se_sparse_volatile_header(ByteSpan bytes);

// The number of the table that a directory entry other than 0 names; nullopt when it is no entry.
std::optional<uint64_t> se_sparse_table_index(uint64_t raw);

// What a grain table entry says.
VmdkEntry se_sparse_grain(uint64_t raw, uint64_t grains_offset);

}  // namespace underlay
