// QEMU's image locking (image_lock.h), as somebody asks who wants to replace an image.
#pragma once

#include <string>

#include "io/error.h"

namespace underlay {

// Fails with kDenied when somebody else has the open file open as an image, to read it or to write
// to it: QEMU, or a server. Takes no lock. Never waits.
Result<void> check_unused(int fd, const std::string& name);

}  // namespace underlay
