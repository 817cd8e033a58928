// What the colours of a picture of a disk mean.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tools/img/canvas.h"
#include "tools/img/map_cells.h"

namespace underlay::img {

// What has a colour of its own: an image of the chain, the others together, or what no image has.
struct MapGroup {
  std::string name;     // printable
  std::string depth{};  // of an image, as MapEntry::depth
  Colour of;
  std::array<uint64_t, 3> bytes{};  // by MapClass::Kind
};

// There are fewer colours that everybody can tell apart than images in a long chain: the top image
// and those that have the most bytes get one each.
class MapLegend {
 public:
  MapLegend(const std::vector<Layer>& layers, const MapBytes& totals);

  const std::vector<MapGroup>& groups() const { return groups_; }
  // The same bytes, with the index of a group for each layer.
  MapBytes grouped(const MapBytes& bytes) const;

 private:
  uint32_t group_of(uint32_t layer) const;

  std::vector<MapGroup> groups_;
  std::vector<uint32_t> group_of_layer_;
  uint32_t nowhere_ = 0;  // index of the group
};

// How a picture calls an image: its file's name, and its format.
std::string name_in_picture(const Layer& layer);

// Fills the rectangles that were added to the canvas with what means `kind` in `group`.
void paint(Canvas& canvas, const MapGroup& group, MapClass::Kind kind);

}  // namespace underlay::img
