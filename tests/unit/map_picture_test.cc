#include <doctest/doctest.h>

#include "tools/img/map_cells.h"
#include "tools/img/map_grid.h"

namespace underlay::img {
namespace {

using Kind = MapClass::Kind;

constexpr uint64_t kCells = MapCells::kColumns * MapCells::kMaxRows;

MapEntry data_at(uint64_t start, uint64_t length, uint64_t depth = 0) {
  return {.start = start, .length = length, .depth = depth, .present = true, .data = true};
}

int pixels_of(const std::vector<MapSlice>& slices, MapClass shade) {
  int pixels = 0;
  for (const MapSlice& slice : slices) {
    if (slice.shade == shade) pixels += slice.pixels;
  }
  return pixels;
}

TEST_CASE("MapCells: a power of two for a cell, a sector at least, and never too many") {
  CHECK(MapCells(0, 0).cells().empty());
  CHECK(MapCells(0, 512).cells().size() == 1);
  CHECK(MapCells(0, 1 << 20).cell_bytes() == 512);
  CHECK(MapCells(0, 512 * kCells).cell_bytes() == 512);
  CHECK(MapCells(0, 512 * kCells + 1).cell_bytes() == 1024);
  CHECK(MapCells(0, uint64_t{64} << 40).cells().size() == kCells);
  CHECK(MapCells(0, INT64_MAX).cells().size() == kCells);
  CHECK(MapCells(5, 5 + 512 * 65).rows() == 2);
}

TEST_CASE("MapCells: an entry is shared out over the cells that it lies in") {
  MapCells cells(1000, 1000 + 3 * 512);
  cells.add(data_at(1000, 600));
  cells.add({.start = 1600, .length = 936, .zero = true});
  const MapClass data{.layer = 0, .kind = Kind::kData};
  const MapClass nothing{.layer = MapClass::kNowhere, .kind = Kind::kZero};
  CHECK(cells.cells()[0] == MapBytes{{data, 512}});
  CHECK(cells.cells()[1] == MapBytes{{data, 88}, {nothing, 424}});
  CHECK(cells.cells()[2] == MapBytes{{nothing, 512}});
  CHECK(cells.totals() == MapBytes{{data, 600}, {nothing, 936}});
}

TEST_CASE("MapCells: what is in one image in different ways is told apart") {
  MapCells cells(0, 512);
  MapEntry compressed = data_at(0, 100, 3);
  compressed.compressed = true;
  cells.add(compressed);
  cells.add(data_at(100, 12, 3));
  cells.add({.start = 112, .length = 400, .depth = 3, .present = true, .zero = true});
  CHECK(cells.totals() == MapBytes{{{.layer = 3, .kind = Kind::kCompressed}, 100},
                                   {{.layer = 3, .kind = Kind::kData}, 12},
                                   {{.layer = 3, .kind = Kind::kZero}, 400}});
}

TEST_CASE("slices_of: in proportion, stored bytes first, all pixels given") {
  const MapClass data{.layer = 0, .kind = Kind::kData};
  const MapClass zero{.layer = 0, .kind = Kind::kZero};
  CHECK(slices_of({{data, 50}, {zero, 50}}, 100) == std::vector<MapSlice>{{data, 50}, {zero, 50}});
  CHECK(slices_of({{data, 7}}, 13) == std::vector<MapSlice>{{data, 13}});
  CHECK(slices_of({{zero, UINT64_MAX}}, 13) == std::vector<MapSlice>{{zero, 13}});
  CHECK(slices_of({}, 13).empty());
}

TEST_CASE("slices_of: little that is stored is seen, however many classes there are") {
  const MapClass zero{.layer = MapClass::kNowhere, .kind = Kind::kZero};
  const MapClass data{.layer = 1, .kind = Kind::kData};
  CHECK(pixels_of(slices_of({{data, 1}, {zero, uint64_t{1} << 62}}, 13), data) == 3);
  MapBytes many{{zero, 1000}};
  for (uint32_t layer = 0; layer < 7; ++layer) many[{.layer = layer, .kind = Kind::kData}] = 1;
  const auto slices = slices_of(many, 13);
  int sum = 0;
  for (const MapSlice& slice : slices) {
    sum += slice.pixels;
    if (slice.shade.kind == Kind::kData) CHECK(slice.pixels > 0);
  }
  CHECK(sum == 13);
}

}  // namespace
}  // namespace underlay::img
