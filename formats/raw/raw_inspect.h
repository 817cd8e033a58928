// What there is to tell of a raw image: its size.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<ImageFacts> describe_raw(const FileToInspect& file);
Result<void> dump_raw(const FileToInspect& file, DumpSink& sink);

}  // namespace underlay
