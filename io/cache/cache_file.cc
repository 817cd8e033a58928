#include "io/cache/cache_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace underlay {
namespace {

constexpr int kTries = 4;  // a file may be made or evicted between two looks at it

void give_to_owner_of(int folder, int file) {
  struct stat status;
  if (::geteuid() != 0 || ::fstat(folder, &status) != 0 || status.st_uid == 0) return;
  (void)!::fchown(file, status.st_uid, status.st_gid);
}

Failure not_regular() {
  return fail(ErrorKind::kDenied, "is no regular file, as all of the cache are: remove it");
}

Result<void> check_is_ours(int file) {
  struct stat status;
  if (::fstat(file, &status) != 0) return fail_errno(errno, "cannot look at it");
  if (!S_ISREG(status.st_mode)) return not_regular();
  if (status.st_nlink > 1) {
    return fail(ErrorKind::kDenied,
                "has {} names (hard links), where a file of the cache has one: remove it",
                status.st_nlink);
  }
  return {};
}

}  // namespace

Result<UniqueFd> open_cache_file(int folder, const std::string& name, CacheAccess access,
                                 CacheMake make) {
  const int flags = (access == CacheAccess::kRead ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK |
                    O_CLOEXEC | O_NOCTTY;
  for (int i = 0; i < kTries; ++i) {
    if (make != CacheMake::kAlways) {
      UniqueFd fd(::openat(folder, name.c_str(), flags));
      if (fd.valid()) {
        TRY(check_is_ours(fd.get()));
        return fd;
      }
      // A symbolic link; a folder; a socket.
      if (errno == ELOOP || errno == EISDIR || errno == ENXIO) return not_regular();
      if (errno != ENOENT) return fail_errno(errno, "cannot open");
      if (make == CacheMake::kNo) break;
    }
    UniqueFd fd(::openat(folder, name.c_str(), flags | O_CREAT | O_EXCL, 0600));
    if (fd.valid()) {
      give_to_owner_of(folder, fd.get());
      return fd;
    }
    if (errno != EEXIST || make == CacheMake::kAlways) return fail_errno(errno, "cannot make");
  }
  return fail(ErrorKind::kNotFound, "is not there");
}

}  // namespace underlay
