// How far long work is, on standard error.
#pragma once

#include <chrono>
#include <cstdint>

namespace underlay {

class Progress {
 public:
  // On a terminal one line that changes; with `wanted` elsewhere, too: a line a second.
  explicit Progress(bool wanted);

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

}  // namespace underlay
