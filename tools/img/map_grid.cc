#include "tools/img/map_grid.h"

#include <algorithm>

namespace underlay::img {
namespace {

constexpr int kInnerPixels = kCellPixels - 1;
constexpr int kLeast = 3;  // pixels of what is stored

// Without overflow: `bytes` and `total` may be near 2^64.
int share(uint64_t bytes, uint64_t total, int pixels) {
  const double part = static_cast<double>(bytes) / static_cast<double>(total);
  return static_cast<int>(part * pixels);
}

int sum_of(const std::vector<MapSlice>& slices) {
  int sum = 0;
  for (const MapSlice& slice : slices) sum += slice.pixels;
  return sum;
}

// REQUIRES: there is one.
MapSlice& largest(std::vector<MapSlice>& slices) {
  return *std::max_element(slices.begin(), slices.end(), [](const MapSlice& a, const MapSlice& b) {
    return a.pixels < b.pixels;
  });
}

struct Rectangle {
  int x;
  int y;
  int width;
  int height;
};

// The rectangles of a picture, by what they show.
class Rectangles {
 public:
  explicit Rectangles(size_t groups) : of_(groups * kKinds) {}

  void add(const std::vector<MapSlice>& slices, int x, int bottom, int cells) {
    for (const MapSlice& slice : slices) {
      if (slice.pixels == 0) continue;
      bottom -= slice.pixels;
      of_[slice.shade.layer * kKinds + static_cast<size_t>(slice.shade.kind)].push_back(
          {.x = x, .y = bottom, .width = cells * kCellPixels, .height = slice.pixels});
    }
  }

  void draw(Canvas& canvas, const MapLegend& legend) const {
    for (size_t i = 0; i < of_.size(); ++i) {
      if (of_[i].empty()) continue;
      for (const Rectangle& each : of_[i]) {
        canvas.add_rectangle(each.x, each.y, each.width, each.height);
      }
      paint(canvas, legend.groups()[i / kKinds], static_cast<MapClass::Kind>(i % kKinds));
    }
  }

 private:
  static constexpr size_t kKinds = 3;
  std::vector<std::vector<Rectangle>> of_;
};

}  // namespace

std::vector<MapSlice> slices_of(const MapBytes& parts, int pixels) {
  const auto is_zero = [](const MapClass& what) { return what.kind == MapClass::Kind::kZero; };
  uint64_t total = 0;
  uint64_t zeros = 0;
  for (const auto& [what, bytes] : parts) {
    total += bytes;
    if (is_zero(what)) zeros += bytes;
  }
  std::vector<MapSlice> slices;
  for (const auto& [what, bytes] : parts) {
    if (!is_zero(what)) slices.push_back({what, std::max(share(bytes, total, pixels), kLeast)});
  }
  for (int sum = sum_of(slices); sum > pixels; --sum) --largest(slices).pixels;
  const int left = pixels - sum_of(slices);
  for (const auto& [what, bytes] : parts) {
    if (is_zero(what)) slices.push_back({what, share(bytes, zeros, left)});
  }
  // What rounding left.
  if (!slices.empty()) largest(slices).pixels += pixels - sum_of(slices);
  return slices;
}

void draw_grid(Canvas& canvas, int x, int y, const MapCells& cells, const MapLegend& legend) {
  constexpr auto kColumns = static_cast<size_t>(MapCells::kColumns);
  Rectangles rectangles(legend.groups().size());
  const auto& all = cells.cells();
  for (size_t row = 0; row * kColumns < all.size(); ++row) {
    const size_t end = std::min(all.size(), (row + 1) * kColumns);
    const int bottom = y + static_cast<int>(row) * kCellPixels + kInnerPixels;
    for (size_t i = row * kColumns; i < end;) {
      const auto slices = slices_of(legend.grouped(all[i]), kInnerPixels);
      int like = 1;  // neighbours that look the same are one rectangle
      while (i + static_cast<size_t>(like) < end &&
             slices_of(legend.grouped(all[i + static_cast<size_t>(like)]), kInnerPixels) ==
                 slices) {
        ++like;
      }
      rectangles.add(slices, x + static_cast<int>(i % kColumns) * kCellPixels, bottom, like);
      i += static_cast<size_t>(like);
    }
  }
  rectangles.draw(canvas, legend);
  const int height = static_cast<int>(cells.rows()) * kCellPixels;
  for (int column = 1; column <= static_cast<int>(kColumns); ++column) {
    const double line = x + column * kCellPixels - 0.5;
    canvas.line(line, y, line, y + height, colour(0xffffff));
  }
}

}  // namespace underlay::img
