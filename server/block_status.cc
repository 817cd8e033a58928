#include "server/block_status.h"

#include "server/limits.h"
#include "server/nbd_protocol.h"

namespace underlay {
namespace {

uint64_t allocation_flags(const Extent& extent) {
  if (extent.kind != Extent::Kind::kZero) return 0;
  return extent.reserved ? nbd::kStateZero : nbd::kStateZero | nbd::kStateHole;
}

// Joins equal neighbours. False when the list is full.
bool append(std::vector<StatusExtent>& list, uint64_t length, uint64_t flags, size_t limit) {
  if (!list.empty() && list.back().flags == flags) {
    list.back().length += length;
    return true;
  }
  if (list.size() == limit) return false;
  list.push_back({.length = length, .flags = flags});
  return true;
}

}  // namespace

Result<BlockStatus> block_status(const Export& target, uint64_t offset, uint64_t length,
                                 bool only_one) {
  BlockStatus status;
  const size_t limit = only_one ? 1 : limits::kStatusExtents;
  bool allocation_open = true;
  bool depth_open = true;
  const uint64_t end = offset + length;
  for (unsigned step = 0; step < limits::kStatusSteps && offset < end; ++step) {
    const auto extent = target.disk().map(offset, end - offset, MapFor::kStatus);
    if (!extent && status.allocation.empty()) return Failure(extent.error());
    if (!extent) break;  // the client asks again from here, and learns of the failure then
    allocation_open = allocation_open &&
                      append(status.allocation, extent->length, allocation_flags(*extent), limit);
    depth_open = depth_open && append(status.depth, extent->length, extent->depth, limit);
    if (!allocation_open && !depth_open) break;
    offset += extent->length;
  }
  return status;
}

}  // namespace underlay
