#include "io/log.h"

#include <fmt/format.h>
#include <unistd.h>

#include "io/error.h"

namespace underlay {
namespace {

void put(const std::string& text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

}  // namespace

void Log::write(std::string_view level, std::string_view line) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (now - second_ >= std::chrono::seconds(1)) {
    if (suppressed_ > 0) put(fmt::format("{}: {} lines were left out\n", program_, suppressed_));
    second_ = now;
    lines_ = 0;
    suppressed_ = 0;
  }
  if (lines_ == kLinesPerSecond) {
    ++suppressed_;
    return;
  }
  ++lines_;
  put(fmt::format("{}: {}{}\n", program_, level, printable(line)));
}

}  // namespace underlay
