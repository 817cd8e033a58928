// The entries of a VHDX's log ([MS-VHDX] 2.3), also of those that do not count any more.
#pragma once

#include "formats/inspection/inspector.h"
#include "formats/vhdx/vhdx_layout.h"

namespace underlay::vhdx {

// Headers and descriptors, in the order in which they lie there. What of the log is not in the file
// is left out. Memory: some sectors of it.
Result<void> dump_log(const Source& source, const Header& header, DumpSink& sink);

}  // namespace underlay::vhdx
