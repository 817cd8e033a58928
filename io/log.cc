#include "io/log.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include "io/error.h"

namespace underlay {
namespace {

// Never waits for a reader of standard error: a full pipe must not hold up a ring. False when the
// line could not be written.
bool put(const std::string& text) {
  pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return false;
  return ::write(STDERR_FILENO, text.data(), text.size()) >= 0;
}

}  // namespace

void Log::write(std::string_view level, std::string_view line) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (now - second_ >= std::chrono::seconds(1)) {
    if (suppressed_ > 0 &&
        put(fmt::format("{}: {} lines were left out\n", program_, suppressed_))) {
      suppressed_ = 0;
    }
    second_ = now;
    lines_ = 0;
  }
  if (lines_ == kLinesPerSecond) {
    ++suppressed_;
    return;
  }
  ++lines_;
  if (!put(fmt::format("{}: {}{}\n", program_, level, printable(line)))) ++suppressed_;
}

}  // namespace underlay
