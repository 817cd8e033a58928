// What a VHDX says of itself.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// `specific`: headers, state of the log, regions, metadata items. A log that was not replayed is
// replayed in memory first, when that can be done.
Result<ImageFacts> describe_vhdx(const FileToInspect& file);

}  // namespace underlay
