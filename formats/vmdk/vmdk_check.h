// Looks at every structure of a VMDK image: its descriptor, and of each sparse extent the grain
// directory, the tables, and the grains, which are unpacked when they are compressed.
//
// qemu-img check looks only for grains beyond the end of their file, and counts nothing.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<void> check_vmdk(const FileToInspect& file, CheckReport& report);

}  // namespace underlay
