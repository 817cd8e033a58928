// The grid of cells in a picture of a disk.
#pragma once

#include <vector>

#include "tools/img/map_legend.h"

namespace underlay::img {

inline constexpr int kCellPixels = 14;  // with the line between two cells

struct MapSlice {
  MapClass shade;  // `layer` is the index of a group
  int pixels = 0;
  bool operator==(const MapSlice&) const = default;
};

// `pixels` shared out: first what is stored, then zeros, each as many as it has bytes; what is
// stored is never too little to be seen. `parts`: grouped.
std::vector<MapSlice> slices_of(const MapBytes& parts, int pixels);

// With the top left corner at (x, y). Cells are filled from below.
void draw_grid(Canvas& canvas, int x, int y, const MapCells& cells, const MapLegend& legend);

}  // namespace underlay::img
