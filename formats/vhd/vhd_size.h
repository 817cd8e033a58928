// The size of the disk that a VHD holds: its footer states two, current_size and the geometry's,
// and its writer means one of them. Pure, as the layout is.
#pragma once

#include <string_view>

#include "formats/reader.h"
#include "formats/vhd/vhd_layout.h"

namespace underlay::vhd {

struct DiskSize {
  enum class Rule : uint8_t {
    kSaturated,  // the geometry is the largest that can be stated: current_size
    kCreator,    // by who wrote the image
    kForced,     // the operator asked for this one
    kLargest,    // of a parent: all that its child may need
  };

  uint64_t bytes = 0;
  uint64_t by_geometry = 0;  // current_size when the geometry is saturated
  Rule rule = Rule::kCreator;
};

// `capacity`: bytes that the image can hold.
DiskSize disk_size(const Footer& footer, uint64_t capacity, ImageOptions::VhdSize asked);

// Defects: the size is more than `capacity`. Remarks: the footer's two sizes differ.
void find_size_defects(const DiskSize& size, const Footer& footer, uint64_t capacity,
                       Defects& defects, Remarks& remarks);

}  // namespace underlay::vhd
