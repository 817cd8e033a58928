// A time limit that can be set, lifted and set again at any moment.
#pragma once

#include <chrono>
#include <functional>
#include <utility>

#include "io/ring.h"

namespace underlay {

// Belongs to the thread of `ring`, which outlives it.
class Deadline final : public Completion {
 public:
  // `passed` is called on the ring's thread each time that a limit passes.
  Deadline(Ring& ring, std::function<void()> passed) : ring_(ring), passed_(std::move(passed)) {}

  void set(std::chrono::milliseconds limit) {
    set_ = true;
    end_ = Clock::now() + limit;
    if (!running_) run(limit);
  }
  void lift() {
    if (running_ && set_) ring_.cancel(*this);
    set_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void run(std::chrono::milliseconds time) {
    running_ = true;
    ring_.timeout(time, time_, *this);
  }
  void complete(int) override {
    running_ = false;
    if (!set_) return;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - Clock::now());
    // The timer of an earlier limit has ended.
    if (left.count() > 0) return run(left);
    set_ = false;
    passed_();
  }

  Ring& ring_;
  const std::function<void()> passed_;
  bool set_ = false;
  bool running_ = false;
  Clock::time_point end_;
  __kernel_timespec time_{};
};

}  // namespace underlay
