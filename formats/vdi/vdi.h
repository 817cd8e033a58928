// VDI images of VirtualBox: dynamic, static and differencing. Not served: undo images, and versions
// before 1.1.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_vdi(const ProbeInput& input);

// A differencing image knows its parent by identity alone: ParentLink has no names.
Result<std::unique_ptr<Reader>> open_vdi(const ImageToOpen& image);

}  // namespace underlay
