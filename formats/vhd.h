// VHD images ("vpc"): fixed, dynamic and differencing. Not served: differencing images whose parent
// is a raw disk, and those of tapdisk 0.1, whose sector bitmaps have another bit order.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_vhd(const ProbeInput& input);
Result<std::unique_ptr<Reader>> open_vhd(const ImageToOpen& image);

}  // namespace underlay
