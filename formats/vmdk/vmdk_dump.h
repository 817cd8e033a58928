// The headers, the descriptor, the grain directories and tables, and the markers of a VMDK file,
// field by field. Files that the descriptor names are dumped when they are named themselves.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<void> dump_vmdk(const FileToInspect& file, DumpSink& sink);

}  // namespace underlay
