// How far a hydration is, on standard error.
#pragma once

#include <chrono>
#include <cstdint>

namespace underlay::thin {

class HydrationProgress {
 public:
  // On a terminal one line that changes; with `wanted` elsewhere, too: a line a second.
  explicit HydrationProgress(bool wanted);

  void begin(uint64_t total_bytes);
  void add(uint64_t bytes);
  // The line stays as it is. Nothing to do unless begun.
  void end();

 private:
  void print() const;

  bool terminal_;
  bool shown_;
  bool printed_ = false;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  std::chrono::steady_clock::time_point begun_;
  std::chrono::steady_clock::time_point next_;
};

}  // namespace underlay::thin
