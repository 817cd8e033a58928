#include "io/log.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <climits>

#include "io/error.h"

namespace underlay {
namespace {

// Never waits for a reader of standard error: a full pipe must not hold up a ring. False when the
// line could not be written.
bool put_on_stderr(const std::string& text) {
  pollfd ready{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return false;
  return ::write(STDERR_FILENO, text.data(), text.size()) >= 0;
}

}  // namespace

// False when nobody has got the line.
bool Log::put(LogPriority priority, std::string_view line, const LogFields& fields) const {
  const std::string text = printable(line);
  if (journal_.send(journal_entry(program_, priority, text, fields))) return true;
  const std::string_view kind = priority == LogPriority::kWarning ? "warning: " : "";
  // More than PIPE_BUF waits for its reader, and may be torn by the lines of others.
  constexpr size_t kRoom = PIPE_BUF - 200;
  const std::string shown = text.size() > kRoom ? printable(text, kRoom) : text;
  return put_on_stderr(fmt::format("{:.100}: {}{}\n", program_, kind, shown));
}

void Log::write(LogPriority priority, std::string_view line, const LogFields& fields) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (now - second_ >= std::chrono::seconds(1)) {
    if (suppressed_ > 0 &&
        put(LogPriority::kNotice, fmt::format("{} lines were left out", suppressed_), {})) {
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
  if (!put(priority, line, fields)) ++suppressed_;
}

}  // namespace underlay
