// The part of the comparison that concerns pools, and what volumes are made of. Pure.
#pragma once

#include <vector>

#include "tools/thin/fsck_checks.h"

namespace underlay::thin {

// Transaction id, state, thin ids.
void check_pool(const FsckState& state, const FsckPool& pool, std::vector<FsckProblem>& problems);

// The table of the volume's device, above all its origin; and that of the origin.
void check_volume(const FsckState& state, const VolumeRecord& volume,
                  std::vector<FsckProblem>& problems);

}  // namespace underlay::thin
