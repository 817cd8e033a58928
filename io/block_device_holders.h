// Who uses a block device.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"

namespace underlay {

// Who holds the device or a partition of it, in words: "/dev/mapper/vm1", "a mount on /mnt",
// "process 123 (qemu)". Empty: nobody that can be seen. Looks at sysfs, mounts, swap and the other
// processes' descriptors, and never opens the device: that may hang when its server is gone.
Result<std::vector<std::string>> block_device_holders(const std::string& path);
std::string join_holders(const std::vector<std::string>& holders);

}  // namespace underlay
