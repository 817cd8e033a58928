#include "tools/img/image_files.h"

#include <fcntl.h>

#include <cerrno>

#include "io/file_source.h"
#include "io/image_lock.h"
#include "io/unique_fd.h"

namespace underlay::img {

bool is_file_of(const Disk& disk, const struct stat& status) {
  const FileIdentity asked = identity_of(status);
  for (const Layer& layer : disk.layers()) {
    for (const Source* source : layer.reader->sources()) {
      if (source->file().identity() == asked) return true;
    }
  }
  return false;
}

Result<void> check_may_be_replaced(const std::string& path, const Disk& source) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) return {};
  if (is_file_of(source, status)) {
    return in_file(fail(ErrorKind::kUsage,
                        "is a file of the image that is read, and is not "
                        "replaced: choose another name"),
                   path);
  }
  if (!S_ISREG(status.st_mode)) {
    return in_file(fail(ErrorKind::kUsage, "is no regular file, and is not replaced"), path);
  }
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) {
    return in_file(fail_errno(errno, "cannot find out whether it is in use, and is not replaced"),
                   path);
  }
  return check_unused(file.get(), path);
}

}  // namespace underlay::img
