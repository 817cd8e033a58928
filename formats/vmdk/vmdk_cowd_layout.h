// The header of a COWD extent ("vmfsSparse", ESX snapshots on VMFS up to 5): bytes in, checked
// host-order values out. Pure.
//
// VMware "Virtual Disk Format 5.0", section "ESX Server Sparse Extents". All integers are
// little-endian u32; offsets and sizes are in sectors of 512 bytes.
//
//   COWDisk_Header, 2048 bytes (four sectors)
//      0 magicNumber "COWD"          32 union: root {cylinders, heads, sectors}, or
//      4 version (1)                           child {parentFileName[1024], parentGeneration}
//      8 flags (3)                 1060 generation
//     12 numSectors                1064 name[60]
//     16 grainSize                 1124 description[512]
//     20 gdOffset                  1636 savedGeneration
//     24 numGDEntries              1640 reserved[8]
//     28 freeSector                1648 uncleanShutdown
//                                  1652 padding up to 2048
//
//   Grain directory: u32 for each grain table, its sector, 0: there is none.
//   Grain table: 4096 u32, the sector of a grain, 0: not in this extent.
//
// Which disk is the parent says the descriptor, not the header.
#pragma once

#include <cstdint>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

inline constexpr size_t kCowdHeaderBytes = 2048;
inline constexpr uint64_t kCowdGtesPerGt = 4096;

// Fields that were checked against each other and the limits, not yet against the file's size.
struct CowdHeader {
  uint32_t num_sectors = 0;  // > 0
  uint32_t grain_size = 0;   // a power of two; ESX writes 1
  uint32_t gd_offset = 0;    // behind the header
  uint32_t num_gd_entries = 0;
  uint32_t free_sector = 0;  // behind the last table or grain
  bool unclean_shutdown = false;
};

// REQUIRES nothing: any bytes, of which the first kCowdHeaderBytes are the header.
Result<CowdHeader> parse_cowd_header(ByteSpan bytes);

}  // namespace underlay
