// Raw images: the file is the disk.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_raw(const ProbeInput& input);
Result<std::unique_ptr<Reader>> open_raw(const ImageToOpen& image);

}  // namespace underlay
