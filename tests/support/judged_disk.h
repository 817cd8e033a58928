// What a disk shows, beside what it should.
#pragma once

#include <nlohmann/json.hpp>

#include "formats/disk.h"

namespace underlay {

// Reads `disk` (of a large one: what `truth` tells of, the end, and samples between) and maps it.
// The answer:
//   size: bytes
//   failed: [[sector, count], ...] that cannot be read
//   differs: [[sector, count, zero], ...] that are not as in `truth`, behind its end not zeros;
//     zero: zeros are shown instead
//   errors: the first messages of failed reads and maps
//   broken: rules of Disk::map() that were broken
nlohmann::json judge_disk(const Disk& disk, ByteSpan truth);

}  // namespace underlay
