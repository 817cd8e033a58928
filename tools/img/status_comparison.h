// Do two images say the same of where their bytes are? What compare's strict mode asks.
#pragma once

#include "formats/disk.h"
#include "tools/img/content_comparison.h"

namespace underlay::img {

// Compares, for all bytes before `end`: in any image of the chain or in none, zeros or not, space
// set aside or not, compressed or not. (QEMU also compares whether it knows an offset in the file,
// and where its own answers happen to end.) Reads no data. kDiffers, kCannotMap, kInterrupted or
// kEqual. REQUIRES: end <= both disks' sizes.
ComparisonEnd compare_status(const Disk& first, const Disk& second, uint64_t end);

}  // namespace underlay::img
