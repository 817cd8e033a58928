// VHDX: fixed, dynamic and differencing images of Hyper-V, Azure, Disk2vhd, qemu. "[MS-VHDX]:
// Virtual Hard Disk v2 (VHDX) File Format". A log that was not replayed is replayed in memory,
// as note 5 of its appendix asks of those who only read. Not served: parents that are no VHDX;
// images that need a region or metadata item of a newer version.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_vhdx(const ProbeInput& input);
Result<std::unique_ptr<Reader>> open_vhdx(const ImageToOpen& image);

}  // namespace underlay
