// What the cells of a picture of a disk hold.
#pragma once

#include <boost/container/flat_map.hpp>
#include <compare>
#include <cstdint>
#include <vector>

#include "tools/img/map_entries.h"

namespace underlay::img {

// What bytes of a disk are, as the picture tells them apart.
struct MapClass {
  enum class Kind : uint8_t { kData, kCompressed, kZero };

  uint32_t layer = 0;  // MapEntry::depth, or kNowhere
  Kind kind = Kind::kZero;

  static constexpr uint32_t kNowhere = UINT32_MAX;  // in no image: zeros
  auto operator<=>(const MapClass&) const = default;
};

// How many bytes of each class. At most three classes for each of kMaxChainDepth images.
using MapBytes = boost::container::flat_map<MapClass, uint64_t>;

// The range of a disk in cells of equal size, a power of two, rows of kColumns. Memory is bounded
// by their number, whatever the disk is: at most 16 bytes for each class in each cell, which is 50
// MiB for the longest chain.
class MapCells {
 public:
  static constexpr uint64_t kColumns = 64;
  static constexpr uint64_t kMaxRows = 64;

  MapCells(uint64_t start, uint64_t end);

  // Entries come in ascending order, within the range.
  void add(const MapEntry& entry);

  uint64_t start() const { return start_; }
  uint64_t length() const { return end_ - start_; }  // bytes
  uint64_t cell_bytes() const { return cell_bytes_; }
  uint64_t rows() const;
  const std::vector<MapBytes>& cells() const { return cells_; }  // in the order of the disk
  const MapBytes& totals() const { return totals_; }

 private:
  uint64_t start_;
  uint64_t end_;
  uint64_t cell_bytes_;
  std::vector<MapBytes> cells_;
  MapBytes totals_;
};

}  // namespace underlay::img
