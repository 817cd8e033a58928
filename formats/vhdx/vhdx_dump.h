// Headers, log, region tables, metadata and BAT of a VHDX, field by field.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// As the file is: a log that must be replayed is not. Of sector bitmaps, how many sectors they
// have.
Result<void> dump_vhdx(const FileToInspect& file, DumpSink& sink);

}  // namespace underlay
