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

Result<void> describe_disk(const Disk& disk, uint64_t offset, uint64_t end, size_t limit,
                           BlockStatus& status) {
  bool allocation_open = true;
  bool depth_open = true;
  for (unsigned step = 0; step < limits::kStatusSteps && offset < end; ++step) {
    const auto extent = disk.map(offset, end - offset, MapFor::kStatus);
    if (!extent && status.allocation.empty()) return Failure(extent.error());
    if (!extent) break;  // the client asks again from here, and learns of the failure then
    allocation_open = allocation_open &&
                      append(status.allocation, extent->length, allocation_flags(*extent), limit);
    depth_open = depth_open && append(status.depth, extent->length, extent->depth, limit);
    if (!allocation_open && !depth_open) break;
    offset += extent->length;
  }
  return {};
}

Result<void> describe_bitmap(const DirtyBitmap& bitmap, uint64_t offset, uint64_t end, size_t limit,
                             std::vector<StatusExtent>& extents) {
  for (unsigned step = 0; step < limits::kStatusSteps && offset < end; ++step) {
    const auto run = bitmap.run_at(offset, end - offset);
    if (!run && extents.empty()) return Failure(run.error());
    if (!run || !append(extents, run->length, run->dirty ? nbd::kStateDirty : 0, limit)) break;
    offset += run->length;
  }
  return {};
}

}  // namespace

Result<BlockStatus> block_status(const Export& target, const Negotiated& contexts, uint64_t offset,
                                 uint64_t length, bool only_one) {
  BlockStatus status;
  const size_t limit = only_one ? 1 : limits::kStatusExtents;
  const uint64_t end = offset + length;
  if (contexts.allocation || contexts.allocation_depth) {
    TRY(describe_disk(target.disk(), offset, end, limit, status));
  }
  for (uint32_t i = 0; i < target.dirty_bitmaps().size(); ++i) {
    if ((contexts.dirty_bitmaps >> i & 1) == 0) continue;
    BlockStatus::Bitmap& listed = status.bitmaps.emplace_back();
    listed.id = Negotiated::kDirtyBitmapId + i;
    TRY(describe_bitmap(*target.dirty_bitmaps()[i].bitmap, offset, end, limit, listed.extents));
  }
  return status;
}

}  // namespace underlay
