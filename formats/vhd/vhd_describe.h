// What a VHD says of itself.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// `specific`: both sizes with the rule that chose, who wrote the image, the BAT, the batmap and all
// parent locators. Encrypted images, and those of types that are not served, are told as well.
Result<ImageFacts> describe_vhd(const FileToInspect& file);

}  // namespace underlay
