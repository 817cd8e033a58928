// Looks at every structure of a VDI: its header, and all entries of its block map.
//
// A stored block that no entry names is a leak, as blocks_allocated counts it. Bytes behind the
// last stored block are none: the file may be a device that is larger than the image.
//
// qemu-img check knows blocks that are stored twice, numbers beyond blocks_in_image, and a
// blocks_allocated that is not the number of entries, which it calls one corruption; it tells no
// totals.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<void> check_vdi(const FileToInspect& file, CheckReport& report);

}  // namespace underlay
