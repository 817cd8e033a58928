#include "tools/thin/hydration_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "tools/thin/text.h"

namespace underlay::thin {
namespace {

constexpr std::chrono::milliseconds kTerminalInterval{200};
constexpr std::chrono::seconds kLineInterval{1};

}  // namespace

HydrationProgress::HydrationProgress(bool wanted)
    : terminal_(::isatty(STDERR_FILENO) == 1), shown_(terminal_ || wanted) {}

void HydrationProgress::begin(uint64_t total_bytes) {
  total_ = total_bytes;
  done_ = 0;
  begun_ = std::chrono::steady_clock::now();
  next_ = begun_;
}

void HydrationProgress::add(uint64_t bytes) {
  done_ += bytes;
  const auto now = std::chrono::steady_clock::now();
  if (!shown_ || (now < next_ && done_ < total_)) return;
  next_ = now + (terminal_ ? kTerminalInterval : kLineInterval);
  print();
  printed_ = true;
}

void HydrationProgress::print() const {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begun_;
  const double done = static_cast<double>(done_);
  const double rate = done / std::max(time.count(), 0.001);
  const double left = static_cast<double>(total_ - std::min(done_, total_)) / std::max(rate, 1.0);
  const double percent = total_ == 0 ? 100 : 100 * done / static_cast<double>(total_);
  fmt::print(stderr, "{}{:5.1f} % of {}, {}/s, {:.0f} s left{}", terminal_ ? "\r" : "",
             std::min(percent, 100.0), human_size(total_), human_size(static_cast<uint64_t>(rate)),
             left, terminal_ ? "\033[K" : "\n");
  std::fflush(stderr);
}

void HydrationProgress::end() {
  if (terminal_ && printed_) fmt::print(stderr, "\n");
  printed_ = false;
}

}  // namespace underlay::thin
