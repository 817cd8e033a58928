#include "tools/thin/file_stamp.h"

#include <fmt/chrono.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <ctime>

namespace underlay::thin {
namespace {

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

std::string time_words(int64_t nanoseconds, bool exact) {
  const int64_t fraction = (nanoseconds % 1'000'000'000 + 1'000'000'000) % 1'000'000'000;
  const std::time_t seconds = (nanoseconds - fraction) / 1'000'000'000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  std::string words = fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
  return exact ? words + fmt::format(".{:09}", fraction) : words;
}

}  // namespace

Result<FileStamp> stamp_of(int fd, const std::string& path) {
  struct stat status;
  if (::fstat(fd, &status) != 0) return in_file(fail_errno(errno, "cannot stat"), path);
  FileStamp stamp;
  stamp.path = path;
  if (S_ISREG(status.st_mode)) {
    stamp.size = static_cast<uint64_t>(status.st_size);
    stamp.mtime_ns = nanoseconds(status.st_mtim);
  } else if (!S_ISBLK(status.st_mode)) {
    return in_file(fail(ErrorKind::kUnsupported, "is neither a file nor a block device"), path);
  } else if (::ioctl(fd, BLKGETSIZE64, &stamp.size) != 0) {
    return in_file(fail_errno(errno, "cannot learn the size of the block device"), path);
  }
  return stamp;
}

Result<void> check_stamp(const FileStamp& was, const FileStamp& now) {
  if (now.size != was.size) {
    return in_file(
        fail(ErrorKind::kIo, "changed since volumes were made on it ({} bytes, was {}): {}",
             now.size, was.size, kPutImageBack),
        was.path);
  }
  if (now.version != was.version) {
    return in_file(
        fail(ErrorKind::kIo, "changed on its server since volumes were made on it ({}, was {}): {}",
             printable(now.version, 200), printable(was.version, 200), kPutImageBack),
        was.path);
  }
  if (now.mtime_ns != was.mtime_ns) {
    const bool exact = now.mtime_ns / 1'000'000'000 == was.mtime_ns / 1'000'000'000;
    return in_file(
        fail(ErrorKind::kIo, "changed since volumes were made on it (modified {}, was {}): {}",
             time_words(now.mtime_ns, exact), time_words(was.mtime_ns, exact), kPutImageBack),
        was.path);
  }
  return {};
}

}  // namespace underlay::thin
