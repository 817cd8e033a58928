// Every structure of a qcow2 image, field by field.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Inspector::dump. Tables that the end of the file cuts are dumped up to there.
Result<void> dump_qcow2(const FileToInspect& image, DumpSink& sink);

}  // namespace underlay
