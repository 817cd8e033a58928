// What a VMDK image says of itself. Opens no extent: what only their files tell (the size of their
// grains, whether they are compressed), which qemu-img info shows, is left out.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<ImageFacts> describe_vmdk(const FileToInspect& file);

}  // namespace underlay
