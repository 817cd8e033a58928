// What a qcow image of version 1 says of itself.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Inspector::describe.
Result<ImageFacts> describe_qcow(const FileToInspect& file);

}  // namespace underlay
