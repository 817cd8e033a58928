// From a file to a socket without copying: the kernel passes the pages of its page cache along.
#pragma once

#include <cstddef>
#include <cstdint>

namespace underlay {

// Sends the front of the file's [offset, offset + size) to a socket that does not block
// (O_NONBLOCK). Returns the number of bytes sent: fewer than `size` when the socket takes no more
// now, 0 when the file has none at `offset`; or -errno, -EAGAIN while the socket is full. Blocks
// for pages that are not in memory: see Source::in_memory().
int64_t send_file(int socket, int fd, uint64_t offset, size_t size);

}  // namespace underlay
