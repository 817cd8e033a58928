#include "tools/img/map_cells.h"

#include <algorithm>
#include <bit>

namespace underlay::img {
namespace {

// The least power of two, a sector at least, of which there are few enough.
uint64_t cell_size_for(uint64_t length) {
  constexpr uint64_t kMaxCells = MapCells::kColumns * MapCells::kMaxRows;
  return std::bit_ceil(std::max(div_round_up(length, kMaxCells), Disk::kSectorBytes));
}

MapClass class_of(const MapEntry& entry) {
  using Kind = MapClass::Kind;
  MapClass result;
  result.layer = entry.present ? static_cast<uint32_t>(entry.depth) : MapClass::kNowhere;
  if (!entry.zero) result.kind = entry.compressed ? Kind::kCompressed : Kind::kData;
  return result;
}

}  // namespace

MapCells::MapCells(uint64_t start, uint64_t end)
    : start_(start),
      end_(end),
      cell_bytes_(cell_size_for(end - start)),
      cells_(div_round_up(end - start, cell_bytes_)) {}

uint64_t MapCells::rows() const { return div_round_up(cells_.size(), kColumns); }

void MapCells::add(const MapEntry& entry) {
  const MapClass what = class_of(entry);
  uint64_t at = entry.start - start_;
  uint64_t left = entry.length;
  while (left > 0) {
    const uint64_t part = std::min(left, cell_bytes_ - at % cell_bytes_);
    cells_[at / cell_bytes_][what] += part;
    at += part;
    left -= part;
  }
  if (entry.length > 0) totals_[what] += entry.length;
}

}  // namespace underlay::img
