// Looks at every structure of a VHD: both footers, the dynamic disk header, the batmap, all entries
// of the BAT, and, where nobody else's reader agrees on what they mean, the sector bitmaps.
//
// Room for whole blocks between those that are stored is a leak, unless it is a hole of the file
// system: writers put blocks one behind the other, and none frees one. What an image may lack
// without a byte being lost (a footer of the two) is damage all the same: the next one is the last.
//
// qemu-img check does not know the format.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<void> check_vhd(const FileToInspect& file, CheckReport& report);

}  // namespace underlay
