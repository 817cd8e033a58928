// What a qcow2 image says of itself.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Inspector::describe.
Result<ImageFacts> describe_qcow2(const FileToInspect& file);

}  // namespace underlay
