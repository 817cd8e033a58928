#include "io/image_use.h"

#include <fcntl.h>

namespace underlay {
namespace {

// Of all bytes that stand for permissions.
constexpr off_t kFirstByte = 100;
constexpr off_t kBytes = 200;

}  // namespace

Result<void> check_unused(int fd, const std::string& name) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kFirstByte;
  lock.l_len = kBytes;
  // Where there are no locks, nobody has one.
  if (::fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return {};
  return in_file(fail(ErrorKind::kDenied,
                      "another process (QEMU, or a server) has it open as an image: stop that one, "
                      "or choose another name"),
                 name);
}

}  // namespace underlay
