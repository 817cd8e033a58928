// The answer to NBD_CMD_BLOCK_STATUS (doc/proto.md, "Metadata querying").
#pragma once

#include <cstdint>
#include <vector>

#include "io/error.h"
#include "server/export.h"
#include "server/reply.h"

namespace underlay {

// One list for each context, each from the start of the request; neighbours differ.
struct BlockStatus {
  std::vector<StatusExtent> allocation;  // base:allocation: kStateHole, kStateZero
  std::vector<StatusExtent> depth;       // qemu:allocation-depth: 0 nowhere, 1 top image, ...
};

// Describes [offset, offset + length) or a first part of it: at most limits::kStatusExtents
// extents, or one when `only_one`. Fails when not even the first extent is known. May block.
// REQUIRES: length > 0, the range lies within the export.
Result<BlockStatus> block_status(const Export& target, uint64_t offset, uint64_t length,
                                 bool only_one);

}  // namespace underlay
