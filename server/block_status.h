// The answer to NBD_CMD_BLOCK_STATUS (doc/proto.md, "Metadata querying").
#pragma once

#include <cstdint>
#include <vector>

#include "io/error.h"
#include "server/export.h"
#include "server/reply.h"

namespace underlay {

// One list for each context that was negotiated, each from the start of the request; neighbours
// differ.
struct BlockStatus {
  std::vector<StatusExtent> allocation;  // base:allocation: kStateHole, kStateZero
  std::vector<StatusExtent> depth;       // qemu:allocation-depth: 0 nowhere, 1 top image, ...
  // qemu:dirty-bitmap:NAME: kStateDirty. Those that were negotiated, in order of their ids.
  struct Bitmap {
    uint32_t id = 0;
    std::vector<StatusExtent> extents;
  };
  std::vector<Bitmap> bitmaps;
};

// Describes [offset, offset + length) or a first part of it: at most limits::kStatusExtents
// extents a context, or one when `only_one`. Fails when not even the first extent of each is known.
// May block. REQUIRES: length > 0, the range lies within the export; the contexts are the export's.
Result<BlockStatus> block_status(const Export& target, const Negotiated& contexts, uint64_t offset,
                                 uint64_t length, bool only_one);

}  // namespace underlay
