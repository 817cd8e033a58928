#include "io/image_lock.h"

#include <fcntl.h>

#include <array>
#include <cerrno>

namespace underlay {
namespace {

constexpr off_t kUsed = 100;
constexpr off_t kNotShared = 200;
constexpr off_t kEnd = 300;

// Permissions, by their bits in BLK_PERM_*.
constexpr off_t kConsistentRead = 0;
constexpr off_t kWrite = 1;
constexpr off_t kResize = 3;

struct flock bytes_at(off_t at, off_t count, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = at;
  lock.l_len = count;
  return lock;
}

// Of another open file description. What cannot be asked is taken for no.
bool is_locked_by_others(int fd, off_t at, off_t count = 1) {
  struct flock lock = bytes_at(at, count, F_WRLCK);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

Result<void> lock_for_reading(int fd, const std::string& name) {
  for (const off_t at : {kUsed + kConsistentRead, kNotShared + kWrite, kNotShared + kResize}) {
    struct flock lock = bytes_at(at, 1, F_RDLCK);
    if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) continue;
    // Whoever locks exclusively is no QEMU, and does not want the file to be read.
    if (errno == EAGAIN || errno == EACCES) {
      return in_file(fail(ErrorKind::kDenied,
                          "byte {} is locked exclusively by another process: it is in use; "
                          "--force-share reads it all the same",
                          at),
                     name);
    }
    return {};  // no locks here
  }
  // Only now: two that begin at the same time see each other, and both refuse.
  for (const off_t permission : {kWrite, kResize}) {
    if (!is_locked_by_others(fd, kUsed + permission)) continue;
    return in_file(fail(ErrorKind::kDenied,
                        "another process (QEMU, say) has it open for writing: what is read could "
                        "be a mixture; stop that one, or read it all the same with --force-share"),
                   name);
  }
  if (is_locked_by_others(fd, kNotShared + kConsistentRead)) {
    return in_file(fail(ErrorKind::kDenied,
                        "another process lets nobody read it, because it is not consistent now; "
                        "--force-share reads it all the same"),
                   name);
  }
  return {};
}

Result<void> check_unused(int fd, const std::string& name) {
  if (!is_locked_by_others(fd, kUsed, kEnd - kUsed)) return {};
  return in_file(fail(ErrorKind::kDenied,
                      "another process (QEMU, or a server) has it open as an image: stop that one, "
                      "or choose another name"),
                 name);
}

}  // namespace underlay
