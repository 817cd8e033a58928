// Is a qcow2 image whole? Every structure is looked at, and what they use of the file is compared
// with the reference counts that the image keeps, by the rules of qemu-img check.
#pragma once

#include "formats/inspection/inspector.h"

namespace underlay {

// Inspector::check. The data file's size is looked at as well, when it can be opened.
Result<void> check_qcow2(const FileToInspect& image, CheckReport& report);

// Clusters whose references are counted at a time: 68 MiB of memory, a TiB of disk and its tables
// in the usual clusters of 64 KiB. A larger file is gone through several times.
inline constexpr uint64_t kQcow2CheckWindow = 17 << 20;

// The same for any number of them. REQUIRES: window > 0.
Result<void> check_qcow2_by(uint64_t window, const FileToInspect& image, CheckReport& report);

}  // namespace underlay
