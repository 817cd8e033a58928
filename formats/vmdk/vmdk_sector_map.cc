#include "formats/vmdk/vmdk_sector_map.h"

#include <algorithm>
#include <bit>

#include "io/bytes.h"

namespace underlay {
namespace {

constexpr uint64_t kWordBits = 64;

}  // namespace

VmdkSectorMap::VmdkSectorMap(uint64_t file_sectors, uint64_t window_sectors)
    : file_sectors_(file_sectors),
      window_sectors_(std::min(window_sectors, std::max<uint64_t>(file_sectors, 1))),
      windows_(std::max<uint64_t>(div_round_up(file_sectors, window_sectors_), 1)),
      used_(static_cast<size_t>(div_round_up(window_sectors_, kWordBits))),
      starts_(used_.size()) {}

void VmdkSectorMap::begin(uint64_t window) {
  first_ = window * window_sectors_;
  end_ = std::min(first_ + window_sectors_, file_sectors_);
  std::fill(used_.begin(), used_.end(), 0);
  std::fill(starts_.begin(), starts_.end(), 0);
}

bool VmdkSectorMap::mark(uint64_t sector, uint64_t count) {
  uint64_t at = std::max(sector, first_);
  const uint64_t end = std::min(sector + count, end_);
  bool was_marked = false;
  while (at < end) {
    const uint64_t bit = at - first_;
    const uint64_t bits = std::min(kWordBits - bit % kWordBits, end - at);
    const uint64_t mask = (bits == kWordBits ? ~uint64_t{0} : (uint64_t{1} << bits) - 1)
                          << bit % kWordBits;
    uint64_t& word = used_[static_cast<size_t>(bit / kWordBits)];
    was_marked = was_marked || (word & mask) != 0;
    word |= mask;
    at += bits;
  }
  return was_marked;
}

bool VmdkSectorMap::mark_start(uint64_t sector) {
  if (!holds(sector)) return false;
  const uint64_t bit = sector - first_;
  uint64_t& word = starts_[static_cast<size_t>(bit / kWordBits)];
  const uint64_t mask = uint64_t{1} << bit % kWordBits;
  const bool was_marked = (word & mask) != 0;
  word |= mask;
  return was_marked;
}

// The first sector from `from` on that is marked, or is not; end_ when there is none.
uint64_t VmdkSectorMap::next(uint64_t from, bool marked) const {
  while (from < end_) {
    const uint64_t bit = from - first_;
    const uint64_t word = used_[static_cast<size_t>(bit / kWordBits)];
    const uint64_t rest = (marked ? word : ~word) >> bit % kWordBits;
    if (rest != 0) return std::min(from + static_cast<uint64_t>(std::countr_zero(rest)), end_);
    from += kWordBits - bit % kWordBits;
  }
  return end_;
}

std::optional<VmdkSectorMap::Run> VmdkSectorMap::unmarked(uint64_t from) const {
  const uint64_t first = next(std::max(from, first_), false);
  if (first == end_) return std::nullopt;
  return Run{.first = first, .end = next(first, true)};
}

}  // namespace underlay
