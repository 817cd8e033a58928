// What a block device is, and what is on it.
#pragma once

#include <cstdint>
#include <string>

#include "io/error.h"

namespace underlay::thin {

Result<uint64_t> block_device_size(const std::string& path);  // bytes
Result<bool> block_device_read_only(const std::string& path);
// "7:3"
Result<std::string> block_device_number(const std::string& path);
// "7:3" -> "/dev/loop3", "254:1" -> "/dev/mapper/NAME".
Result<std::string> block_device_path(const std::string& number);

// What is on it ("ext4", "LVM2_member", "a dos partition table", "the metadata of a thin pool"); ""
// = nothing that libblkid knows.
Result<std::string> block_device_content(const std::string& path);

// Whether it begins as the metadata device of a thin pool does. Reads past the page cache.
Result<bool> has_thin_pool_superblock(const std::string& path);

// Writes zeros over the first `length` bytes and waits until they are stored. Fails when the device
// is held. REQUIRES: a multiple of 4096.
Result<void> zero_start(const std::string& path, uint64_t length);

}  // namespace underlay::thin
