// Loop devices: files as block devices. Always with autoclear: they go with their last user.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay::thin {

struct LoopDevice {
  UniqueFd fd;         // keeps it alive until a device-mapper table holds it
  std::string path;    // "/dev/loop3"
  std::string number;  // "7:3"
  bool direct_io = false;
};

// Makes a loop device of `file`, an open descriptor that it takes no ownership of; `name` is shown
// by losetup. Sectors of 512 bytes; direct I/O where the file system below can do it.
Result<LoopDevice> open_loop_device(int file, const std::string& name, bool read_only);
// The same of a path.
Result<LoopDevice> open_loop_device(const std::string& path, bool read_only);

// The loop devices that there are of a file, for whoever must be its only user.
Result<std::vector<std::string>> loop_devices_of(const std::string& path);
// Makes an active loop device as large as its file has become.
Result<void> grow_loop_device(const std::string& device);

}  // namespace underlay::thin
