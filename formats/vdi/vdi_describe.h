// What a VDI says of itself.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// `specific`: the header's fields. Versions before 1.1, which are not served, are told as well.
Result<ImageFacts> describe_vdi(const FileToInspect& file);

}  // namespace underlay
