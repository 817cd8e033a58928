// How long things took: a fixed amount of memory for any number of them.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace underlay::img {

// Not thread-safe.
class LatencyHistogram {
 public:
  using Nanoseconds = std::chrono::nanoseconds;

  void add(Nanoseconds latency);
  void add_all(const LatencyHistogram& other);

  uint64_t count() const { return count_; }
  Nanoseconds slowest() const { return slowest_; }  // exact
  // So long took `percent` % of them at most. Right within 1/kSteps. 0 when there were none.
  Nanoseconds percentile(double percent) const;

  static constexpr unsigned kStepBits = 5;
  static constexpr uint64_t kSteps = 1u << kStepBits;  // for each power of two

 private:
  static size_t bucket_of(uint64_t value);
  static uint64_t largest_in(size_t bucket);

  std::array<uint64_t, (64 - kStepBits + 1) * kSteps> buckets_{};
  uint64_t count_ = 0;
  Nanoseconds slowest_{0};
};

}  // namespace underlay::img
