// What a block device is, and who uses it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay::thin {

Result<uint64_t> block_device_size(const std::string& path);  // bytes
Result<bool> block_device_read_only(const std::string& path);
// "7:3"
Result<std::string> block_device_number(const std::string& path);

// Who holds the device, in words: "/dev/mapper/vm1", "mounted on /mnt", "process 123 (qemu)".
// Empty: nobody. Looks at sysfs, /proc/self/mountinfo and the processes' descriptors.
Result<std::vector<std::string>> block_device_holders(const std::string& path);
std::string join_holders(const std::vector<std::string>& holders);

// What blkid finds on it ("ext4", "LVM2_member", "a dos partition table"); "" = nothing.
Result<std::string> block_device_content(const std::string& path);

// Writes zeros over the first `length` bytes and waits until they are stored.
Result<void> zero_start(const std::string& path, uint64_t length);

}  // namespace underlay::thin
