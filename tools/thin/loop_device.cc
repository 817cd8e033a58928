#include "tools/thin/loop_device.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tools/thin/block_device.h"

namespace underlay::thin {
namespace {

constexpr uint32_t kSectorSize = 512;  // images are aligned to no more
constexpr int kTries = 100;            // other programs may take the free device that we were told

loop_config configuration(int file, const std::string& name, bool read_only, bool direct_io) {
  loop_config config{};
  config.fd = static_cast<uint32_t>(file);
  config.block_size = kSectorSize;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  if (read_only) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
  if (direct_io) config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
  // What is cut off at the end is less telling than the beginning would be.
  const size_t shown = std::min(name.size(), sizeof config.info.lo_file_name - 1);
  std::memcpy(config.info.lo_file_name, name.data(), shown);
  return config;
}

// Direct I/O where it can be: newer kernels refuse it, others ignore it, where it cannot.
int configure(int device, int file, const std::string& name, bool read_only) {
  for (const bool direct_io : {true, false}) {
    const loop_config config = configuration(file, name, read_only, direct_io);
    if (::ioctl(device, LOOP_CONFIGURE, &config) == 0) return 0;
    if (errno != EINVAL) break;
  }
  return errno;
}

// A device that is configured: its number and what the kernel made of the flags.
Result<LoopDevice> describe(UniqueFd device, std::string path) {
  loop_info64 info{};
  if (::ioctl(device.get(), LOOP_GET_STATUS64, &info) != 0) {
    return in_file(fail_errno(errno, "asking for the loop device's state"), path);
  }
  auto number = TRY(block_device_number(path));
  return LoopDevice{.fd = std::move(device),
                    .path = std::move(path),
                    .number = std::move(number),
                    .direct_io = (info.lo_flags & LO_FLAGS_DIRECT_IO) != 0};
}

}  // namespace

Result<LoopDevice> open_loop_device(int file, const std::string& name, bool read_only) {
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.valid()) {
    return in_file(fail_errno(errno,
                              "cannot make a loop device (is the module loaded? 'modprobe "
                              "loop')"),
                   "/dev/loop-control");
  }
  int code = EBUSY;
  for (int tries = 0; tries < kTries && code == EBUSY; ++tries) {
    const int index = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (index < 0) return fail_errno(errno, "no free loop device for {}", name);
    std::string path = fmt::format("/dev/loop{}", index);
    UniqueFd device(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!device.valid()) return in_file(fail_errno(errno, "opening a free loop device"), path);
    code = configure(device.get(), file, name, read_only);
    if (code == 0) return describe(std::move(device), std::move(path));
  }
  return fail_errno(code, "making a loop device of {}", name);
}

Result<LoopDevice> open_loop_device(const std::string& path, bool read_only) {
  const UniqueFd file(::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
  if (!file.valid()) return in_file(fail_errno(errno, "opening it for a loop device"), path);
  return open_loop_device(file.get(), path, read_only);
}

Result<std::vector<std::string>> loop_devices_of(const std::string& path) {
  struct stat file {};
  if (::stat(path.c_str(), &file) != 0) return in_file(fail_errno(errno, "looking at it"), path);
  std::vector<std::string> devices;
  std::error_code code;
  for (std::filesystem::directory_iterator it("/sys/block", code), end; !code && it != end;
       it.increment(code)) {
    std::ifstream in(it->path() / "loop/backing_file");
    std::string backing;
    struct stat status {};
    if (std::getline(in, backing) && ::stat(backing.c_str(), &status) == 0 &&
        status.st_dev == file.st_dev && status.st_ino == file.st_ino) {
      devices.push_back("/dev/" + it->path().filename().string());
    }
  }
  return devices;
}

Result<void> grow_loop_device(const std::string& device) {
  const UniqueFd fd(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return in_file(fail_errno(errno, "opening the loop device"), device);
  if (::ioctl(fd.get(), LOOP_SET_CAPACITY, 0) != 0) {
    return in_file(fail_errno(errno, "making the loop device as large as its file"), device);
  }
  return {};
}

}  // namespace underlay::thin
