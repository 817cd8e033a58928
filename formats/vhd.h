// VHD images ("vpc"): fixed, dynamic and differencing. Not served: differencing images whose parent
// is a raw disk, and those of tapdisk 0.1, whose sector bitmaps have another bit order.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_vhd(const ProbeInput& input);

// force_size_calc: auto, chs, current_size.
Result<bool> set_vhd_option(ImageOptions& options, std::string_view key, std::string_view value);

Result<std::unique_ptr<Reader>> open_vhd(const ImageToOpen& image);

}  // namespace underlay
