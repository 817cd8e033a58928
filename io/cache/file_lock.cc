#include "io/cache/file_lock.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <thread>

namespace underlay {
namespace {

constexpr std::chrono::milliseconds kFirstWait{1};
constexpr std::chrono::milliseconds kLongestWait{16};

int set_lock(int fd, short kind, off_t start, off_t length) {
  struct flock range {};
  range.l_type = kind;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  return ::fcntl(fd, F_OFD_SETLK, &range) == 0 ? 0 : errno;
}

}  // namespace

FileLock FileLock::take(int fd, off_t start, off_t length, std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  auto wait = kFirstWait;
  for (;;) {
    const int error = set_lock(fd, F_WRLCK, start, length);
    if (error == 0) return {fd, start, length};
    if (error != EAGAIN && error != EACCES) return {};
    if (std::chrono::steady_clock::now() >= until) return {};
    std::this_thread::sleep_for(wait);
    wait = std::min(2 * wait, kLongestWait);
  }
}

FileLock::~FileLock() {
  if (held()) (void)set_lock(fd_, F_UNLCK, start_, length_);
}

}  // namespace underlay
