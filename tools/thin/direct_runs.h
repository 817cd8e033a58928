// Lists of direct runs: merging neighbours, and joining runs when there are too many.
#pragma once

#include <vector>

#include "tools/thin/direct_map.h"

namespace underlay::thin {

// Appends `run`, or lengthens the last one when `run` goes on with the same.
// REQUIRES: run.start is where the list ends, run.sectors > 0.
void append_run(std::vector<DirectRun>& runs, const DirectRun& run);

// Joins neighbours into server runs until at most `limit` runs are left, so that few sectors lose
// their direct way: of all pairs of neighbours always the one with the fewest of them.
// O(n log n). REQUIRES: limit > 0; the list was made by append_run().
void join_runs(std::vector<DirectRun>& runs, size_t limit);

}  // namespace underlay::thin
