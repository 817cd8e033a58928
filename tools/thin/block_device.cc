#include "tools/thin/block_device.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "io/bytes.h"
#include "io/unique_fd.h"

namespace underlay::thin {
namespace {

// Direct I/O goes past the page cache, which may hold what was there before device-mapper wrote.
constexpr size_t kDirectAlignment = 4096;

// The first block of a thin pool's metadata: magic number at byte 32.
constexpr uint64_t kThinPoolMagic = 27022010;
constexpr size_t kThinPoolMagicOffset = 32;

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeMemory>;

Result<AlignedBytes> aligned_zeros(size_t length) {
  AlignedBytes bytes(static_cast<std::byte*>(std::aligned_alloc(kDirectAlignment, length)));
  if (bytes == nullptr) return fail(ErrorKind::kLimit, "no memory for {} bytes", length);
  std::fill_n(bytes.get(), length, std::byte{0});
  return bytes;
}

// The number of a block device's node.
Result<dev_t> node_number(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    const int code = errno;
    if (code == ENOENT) return in_file(fail(ErrorKind::kNotFound, "no such device"), path);
    return in_file(fail_errno(code, "looking at the device"), path);
  }
  if (!S_ISBLK(status.st_mode)) {
    return in_file(fail(ErrorKind::kUsage, "is not a block device"), path);
  }
  return status.st_rdev;
}

Result<UniqueFd> open_block_device(const std::string& path, int flags) {
  TRY(node_number(path));  // opening what is something else may wait or have effects
  UniqueFd device(::open(path.c_str(), flags | O_CLOEXEC));
  if (!device.valid()) return in_file(fail_errno(errno, "opening the device"), path);
  return device;
}

struct FreeProbe {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, FreeProbe>;

std::string probed_value(const Probe& probe, const char* name) {
  const char* value = nullptr;
  if (blkid_probe_lookup_value(probe.get(), name, &value, nullptr) != 0 || value == nullptr) {
    return "";
  }
  return printable(value, 64);
}

}  // namespace

Result<uint64_t> block_device_size(const std::string& path) {
  const UniqueFd device = TRY(open_block_device(path, O_RDONLY));
  uint64_t size = 0;
  if (::ioctl(device.get(), BLKGETSIZE64, &size) != 0) {
    return in_file(fail_errno(errno, "asking for its size"), path);
  }
  return size;
}

Result<bool> block_device_read_only(const std::string& path) {
  const UniqueFd device = TRY(open_block_device(path, O_RDONLY));
  int read_only = 0;
  if (::ioctl(device.get(), BLKROGET, &read_only) != 0) {
    return in_file(fail_errno(errno, "asking whether it is read-only"), path);
  }
  return read_only != 0;
}

Result<std::string> block_device_number(const std::string& path) {
  const dev_t number = TRY(node_number(path));
  return fmt::format("{}:{}", ::major(number), ::minor(number));
}

Result<std::string> block_device_path(const std::string& number) {
  const std::string folder = "/sys/dev/block/" + number;
  std::ifstream in(folder + "/dm/name");
  std::string name;
  if (std::getline(in, name)) return "/dev/mapper/" + name;
  std::error_code code;
  const auto link = std::filesystem::read_symlink(folder, code);
  if (code) return in_file(fail_errno(code.value(), "looking for the device's name"), folder);
  return "/dev/" + link.filename().string();
}

Result<bool> has_thin_pool_superblock(const std::string& path) {
  const UniqueFd device = TRY(open_block_device(path, O_RDONLY | O_DIRECT));
  const AlignedBytes block = TRY(aligned_zeros(kDirectAlignment));
  const ssize_t got = ::pread(device.get(), block.get(), kDirectAlignment, 0);
  if (got < 0) return in_file(fail_errno(errno, "reading its first block"), path);
  if (static_cast<size_t>(got) < kDirectAlignment) return false;  // too small to be one
  return load_le<uint64_t>(std::span(block.get(), kDirectAlignment), kThinPoolMagicOffset) ==
         kThinPoolMagic;
}

Result<std::string> block_device_content(const std::string& path) {
  // blkid does not know it.
  if (TRY(has_thin_pool_superblock(path))) return "the metadata of a thin pool";
  const UniqueFd device = TRY(open_block_device(path, O_RDONLY));
  const Probe probe(blkid_new_probe());
  if (probe == nullptr) return fail(ErrorKind::kLimit, "no memory for libblkid");
  // Partitions first: a table of them is told beside a file system that is (or was) there, too.
  if (blkid_probe_set_device(probe.get(), device.get(), 0, 0) != 0 ||
      blkid_probe_enable_superblocks(probe.get(), 1) != 0 ||
      blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE) != 0 ||
      blkid_probe_enable_partitions(probe.get(), 1) != 0) {
    return in_file(fail(ErrorKind::kIo, "libblkid cannot examine it"), path);
  }
  switch (blkid_do_safeprobe(probe.get())) {
    case 1:
      return "";
    case -2:
      return "several signatures at once";
    case 0:
      break;
    default:
      return in_file(fail(ErrorKind::kIo, "libblkid cannot tell what is on it"), path);
  }
  if (const std::string type = probed_value(probe, "TYPE"); !type.empty()) return type;
  const std::string table = probed_value(probe, "PTTYPE");
  return table.empty() ? "something that libblkid knows" : "a " + table + " partition table";
}

Result<void> zero_start(const std::string& path, uint64_t length) {
  const UniqueFd device = TRY(open_block_device(path, O_WRONLY | O_EXCL | O_DIRECT));
  const AlignedBytes zeros = TRY(aligned_zeros(kDirectAlignment));
  for (uint64_t done = 0; done < length; done += kDirectAlignment) {
    const ssize_t put =
        ::pwrite(device.get(), zeros.get(), kDirectAlignment, static_cast<off_t>(done));
    if (put != static_cast<ssize_t>(kDirectAlignment)) {
      return in_file(fail_errno(put < 0 ? errno : EIO, "writing zeros"), path, done);
    }
  }
  if (::fsync(device.get()) != 0) {
    return in_file(fail_errno(errno, "storing the zeros at its start"), path);
  }
  return {};
}

}  // namespace underlay::thin
