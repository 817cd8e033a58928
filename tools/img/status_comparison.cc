#include "tools/img/status_comparison.h"

#include <algorithm>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

struct Status {
  bool allocated = false;
  bool zero = false;
  bool reserved = false;
  bool compressed = false;
  bool operator==(const Status&) const = default;
};

Status status_of(const Extent& extent) {
  return {.allocated = extent.depth > 0,
          .zero = extent.kind == Extent::Kind::kZero,
          .reserved = extent.reserved,
          .compressed = extent.kind == Extent::Kind::kCompressed};
}

// Holes of the file system count where the image is nothing but its bytes: elsewhere it is the
// format that says what is there.
Result<Extent> extent_at(const Disk& disk, uint64_t offset, uint64_t length) {
  Extent extent = TRY(disk.map(offset, length, MapFor::kRead));
  if (extent.kind != Extent::Kind::kData) return extent;
  if (disk.layers()[extent.depth - 1u].reader->cluster_size() != 0) return extent;
  return disk.map(offset, length, MapFor::kStatus);
}

}  // namespace

ComparisonEnd compare_status(const Disk& first, const Disk& second, uint64_t end) {
  using Kind = ComparisonEnd::Kind;
  ComparisonEnd ended;
  const std::array<const Disk*, 2> disks{&first, &second};
  std::array<Extent, 2> extents;
  while (ended.offset < end) {
    uint64_t length = end - ended.offset;
    for (ended.side = 0; ended.side < disks.size(); ++ended.side) {
      auto extent = extent_at(*disks[ended.side], ended.offset, length);
      if (!extent) {
        ended.kind = Kind::kCannotMap;
        ended.error = std::move(extent).error();
        return ended;
      }
      extents[ended.side] = *extent;
      length = std::min(length, extent->length);
    }
    if (status_of(extents[0]) != status_of(extents[1])) ended.kind = Kind::kDiffers;
    if (is_interrupted()) ended.kind = Kind::kInterrupted;
    if (ended.kind != Kind::kEqual) return ended;
    ended.offset += length;
  }
  return ended;
}

}  // namespace underlay::img
