// How long a thread looks for work before it sleeps. Pure: whoever waits tells how long it was.
#pragma once

#include <algorithm>
#include <chrono>

namespace underlay {

// Looking pays where work comes soon after work: then the window grows. The first wait that a whole
// window would not have covered closes it, so that an idle thread looks in vain once and no more.
class PollWindow {
 public:
  using Duration = std::chrono::nanoseconds;

  // `limit` 0: it stays closed.
  explicit PollWindow(Duration limit = {}) : limit_(limit) {}

  bool enabled() const { return limit_ > Duration::zero(); }
  // How long to look at most; 0: not at all.
  Duration length() const { return length_; }
  // Work came `time` after the last was done, seen by looking or after a sleep.
  void waited(Duration time) {
    if (time > limit_) {
      length_ = Duration::zero();
    } else if (time > length_) {
      length_ = std::min(limit_, std::max(2 * length_, kFirst));
    }
  }

 private:
  static constexpr Duration kFirst = std::chrono::microseconds(10);

  Duration limit_;
  Duration length_{};
};

}  // namespace underlay
