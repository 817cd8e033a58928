#include "io/send_file.h"

#include <sys/sendfile.h>

#include <cerrno>

namespace underlay {

int64_t send_file(int socket, int fd, uint64_t offset, size_t size) {
  auto at = static_cast<off_t>(offset);
  const ssize_t sent = ::sendfile(socket, fd, &at, size);
  return sent < 0 ? -errno : sent;
}

}  // namespace underlay
