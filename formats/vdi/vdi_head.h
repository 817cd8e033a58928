// The header of a VDI, for people who look into images: whatever it says.
#pragma once

#include <array>
#include <string_view>

#include "formats/vdi/vdi_layout.h"
#include "io/source.h"

namespace underlay::vdi {

using HeaderBytes = std::array<std::byte, kHeaderBytes>;

// Fails when the file is no VDI, ends within its header, or cannot be read.
Result<HeaderBytes> read_header_bytes(const Source& source);

// "dynamic", ..., "unknown".
std::string_view type_name(uint32_t image_type);

}  // namespace underlay::vdi
