// The directory, the tables and the grains of one sparse extent, looked at for underlay-img check.
#pragma once

#include <algorithm>

#include "formats/inspection/check_report.h"
#include "formats/vmdk/vmdk_sector_map.h"
#include "formats/vmdk/vmdk_sparse_file.h"
#include "io/source.h"

namespace underlay {

struct VmdkExtentToCheck {
  const Source& source;
  VmdkSparseFile file;    // what its head says
  uint64_t sectors = 0;   // that the descriptor gives the extent
  bool is_image = false;  // else messages name the file
  uint64_t window_sectors = VmdkSectorMap::kWindowSectors;
};

// How far the check of all extents is, in sectors of the guest's.
struct VmdkCheckProgress {
  uint64_t done = 0;
  uint64_t total = 0;
  // Of a descriptor that is refused, the extents may have more than their disk.
  void begin_next(uint64_t sectors) { done = std::min(sectors, total - done) + done; }
};

// Memory: the window of VmdkSectorMap, and kMaxCheckedTables. Returns the byte in the file behind
// the last that is used. Fails when the operator breaks off.
Result<uint64_t> check_vmdk_extent(const VmdkExtentToCheck& extent, CheckReport& report,
                                   const VmdkCheckProgress& progress);

// Tables of an extent whose places are held in memory, 64 MiB: those of 128 TiB in grains of 64
// KiB, of 64 TiB of seSparse.
inline constexpr uint64_t kVmdkMaxCheckedTables = 4 << 20;

}  // namespace underlay
