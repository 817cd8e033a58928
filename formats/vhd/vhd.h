// VHD images ("vpc"): fixed, dynamic and differencing, those of tapdisk 0.1 to 1.3 as well. Not
// served: images that tapdisk encrypted, and those that vhd-util was resizing.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_vhd(const ProbeInput& input);

// force_size_calc: auto, chs, current_size.
Result<bool> set_vhd_option(ImageOptions& options, std::string_view key, std::string_view value);

Result<std::unique_ptr<Reader>> open_vhd(const ImageToOpen& image);

}  // namespace underlay
