// When to try again what has failed, or what works but does not last.
#pragma once

#include <algorithm>
#include <chrono>

namespace underlay::thin {

// At once after a quiet time, else later and later. Pure: the caller brings the time.
class RetryDelay {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::milliseconds kFirst{50};
  static constexpr std::chrono::milliseconds kLongest{5000};
  static constexpr std::chrono::seconds kQuiet{10};

  // An attempt has ended, with whatever result.
  void ended(Time now) {
    delay_ = delay_.count() == 0 ? kFirst : std::min(2 * delay_, kLongest);
    last_ = now;
  }
  // The earliest time for the next one, when it turns out at `now` that one is needed.
  Time next(Time now) {
    if (now - last_ >= kQuiet) delay_ = {};
    return std::max(now, last_ + delay_);
  }

 private:
  std::chrono::milliseconds delay_{0};
  Time last_{};
};

}  // namespace underlay::thin
