// Every structure of a qcow image of version 1, field by field.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Inspector::dump. Tables that the end of the file cuts are dumped up to there.
Result<void> dump_qcow(const FileToInspect& image, DumpSink& sink);

}  // namespace underlay
