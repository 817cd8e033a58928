#include "tools/thin/pidfd.h"

#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

namespace underlay::thin {

bool has_ended(int pidfd, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + limit;
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd ended{.fd = pidfd, .events = POLLIN, .revents = 0};
    const int got = ::poll(&ended, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (got > 0) return true;
    if (got == 0 || errno != EINTR) return false;
  }
}

int wait_for_end(pid_t child) {
  int status = -1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

}  // namespace underlay::thin
