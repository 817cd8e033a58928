// Is a qcow image of version 1 whole? Tables and clusters must lie within the file and beside each
// other. The format keeps no reference counts; qemu-img has no check for it.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Inspector::check.
Result<void> check_qcow(const FileToInspect& image, CheckReport& report);

// Places of clusters that are compared at a time: 64 MiB of memory, 256 GiB of file in the usual
// clusters of 4 KiB. A larger file is gone through several times.
inline constexpr uint64_t kQcowCheckWindow = 64 << 20;

// The same for any number of them. REQUIRES: window > 0.
Result<void> check_qcow_by(uint64_t window, const FileToInspect& image, CheckReport& report);

}  // namespace underlay
