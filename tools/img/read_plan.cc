#include "tools/img/read_plan.h"

#include <algorithm>
#include <cassert>

namespace underlay::img {
namespace {

// Extents in one part of zeros: whoever waits for it is not to wait for all of a large disk.
constexpr int kMostExtents = 256;

}  // namespace

ReadPlan::ReadPlan(const Disk& disk, uint64_t offset, uint64_t length, uint64_t unit,
                   uint64_t largest)
    : disk_(&disk), start_(offset), length_(length), unit_(unit), largest_(largest) {
  assert(range_within(offset, length, disk.size()) && unit > 0 && largest % unit == 0);
}

Result<std::optional<ReadPlan::Part>> ReadPlan::next() {
  if (at_ == length_) return std::nullopt;
  if (TRY(run_at(at_)).is_zero) {
    const uint64_t zeros = zeros_until(length_);
    const uint64_t end = zeros == length_ ? zeros : zeros - zeros % unit_;
    if (end > at_) return part_until(end, 0);
  }
  return stored_part();
}

// From here to the next unit of zeros, the next failure, or as far as a part may go.
ReadPlan::Part ReadPlan::stored_part() {
  const uint64_t limit = at_ + std::min(length_ - at_, largest_ - at_ % largest_);
  uint64_t end = at_;
  uint64_t stored = 0;
  while (end < limit) {
    const auto run = run_at(end);
    if (!run) break;
    if (run->is_zero) {
      const uint64_t to_unit = (unit_ - end % unit_) % unit_;
      uint64_t zeros = run->end;
      if (to_unit < limit - end) {
        const uint64_t unit = end + to_unit;
        const uint64_t wanted = unit + std::min(unit_, length_ - unit);
        zeros = zeros_until(wanted);
        if (zeros >= wanted && unit > at_) return part_until(unit, stored);
      }
      end = std::min(zeros, limit);
    } else {
      stored += std::min(run->end, limit) - end;
      end = std::min(run->end, limit);
    }
  }
  return part_until(end, stored);
}

// The end of the zeros that run_ is the first run of. Looks no further than `enough`, nor than a
// failure: whoever goes on there is told.
uint64_t ReadPlan::zeros_until(uint64_t enough) {
  uint64_t end = run_.end;
  for (int extents = 1; end < enough && extents < kMostExtents; ++extents) {
    const auto run = run_at(end);
    if (!run || !run->is_zero) break;
    end = run->end;
  }
  return end;
}

Result<ReadPlan::Run> ReadPlan::run_at(uint64_t at) {
  if (at < run_.begin || at >= run_.end) {
    const Extent extent = TRY(disk_->map(start_ + at, length_ - at, MapFor::kStatus));
    run_ = {.begin = at, .end = at + extent.length, .is_zero = extent.kind == Extent::Kind::kZero};
  }
  return run_;
}

ReadPlan::Part ReadPlan::part_until(uint64_t end, uint64_t stored) {
  const Part part{
      .offset = start_ + at_, .length = end - at_, .stored = stored, .is_zero = stored == 0};
  at_ = end;
  return part;
}

}  // namespace underlay::img
