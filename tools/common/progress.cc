#include "tools/common/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "tools/common/text.h"

namespace underlay {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::seconds kLineInterval{1};

// Not through stdio, which throws when standard error cannot be written.
void say(const std::string& text) { (void)!::write(STDERR_FILENO, text.data(), text.size()); }

}  // namespace

Progress::Progress(bool wanted)
    : terminal_(::isatty(STDERR_FILENO) == 1), shown_(terminal_ || wanted) {}

void Progress::begin(uint64_t total_bytes) {
  total_ = total_bytes;
  done_ = 0;
  begun_ = std::chrono::steady_clock::now();
  next_ = begun_;
}

void Progress::add(uint64_t bytes) {
  done_ += bytes;
  const auto now = std::chrono::steady_clock::now();
  if (!shown_ || (now < next_ && done_ < total_)) return;
  next_ = now + (terminal_ ? kTerminalInterval : kLineInterval);
  print();
  printed_ = true;
}

void Progress::print() const {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begun_;
  const double done = static_cast<double>(done_);
  const double rate = done / std::max(time.count(), 0.001);
  const double left = static_cast<double>(total_ - std::min(done_, total_)) / std::max(rate, 1.0);
  const double percent = total_ == 0 ? 100 : 100 * done / static_cast<double>(total_);
  say(fmt::format("{}{:5.1f} % of {}, {}/s, {:.0f} s left{}", terminal_ ? "\r" : "",
                  std::min(percent, 100.0), human_size(total_),
                  human_size(static_cast<uint64_t>(rate)), left, terminal_ ? "\033[K" : "\n"));
}

void Progress::end() {
  if (terminal_ && printed_) say("\n");
  printed_ = false;
}

}  // namespace underlay
