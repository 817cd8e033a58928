// Looks at every structure of a VHDX: both headers, the log, both region tables, the metadata, and
// all entries of the BAT. A log that was not replayed is replayed in memory first.
//
// Room that nothing uses is no leak here: a program that writes finds it out of the BAT, and uses
// it for new blocks. It is told, as a notice. A damaged copy of a structure is damage, though no
// byte is lost: the next one is the last.
//
// qemu-img check knows blocks that are fully present and lie over a structure or beyond the end of
// the file; it does not look at differencing images, nor, unless it may repair them, at those with
// a log that must be replayed; it tells no totals.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

Result<void> check_vhdx(const FileToInspect& file, CheckReport& report);

}  // namespace underlay
