// Footers, dynamic disk header, BAT, batmap, parent locators and sector bitmaps of a VHD, field by
// field.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Of the sector bitmaps, how many sectors they have.
Result<void> dump_vhd(const FileToInspect& file, DumpSink& sink);

}  // namespace underlay
