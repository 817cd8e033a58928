// The header and the block map of a VDI, field by field.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<void> dump_vdi(const FileToInspect& file, DumpSink& sink);

}  // namespace underlay
