// Latencies in buckets of less than 1 % width: adding one costs a few instructions, whatever it is.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace underlay::bench {

// Values are nanoseconds. Not thread-safe.
class LatencyHistogram {
 public:
  void add(uint64_t nanoseconds) {
    ++buckets_[bucket(nanoseconds)];
    ++count_;
  }
  uint64_t count() const { return count_; }

  // The latency, in nanoseconds, that `share` (0 to 1) of all do not exceed; 0 when there are none.
  uint64_t quantile(double share) const {
    const auto wanted = static_cast<uint64_t>(share * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t index = 0; index < kBuckets; ++index) {
      seen += buckets_[index];
      if (seen > wanted || (seen == count_ && seen > 0)) return middle(index);
    }
    return 0;
  }

 private:
  // Each power of two is divided in kSteps buckets.
  static constexpr unsigned kStepBits = 7;
  static constexpr size_t kSteps = size_t{1} << kStepBits;
  static constexpr size_t kBuckets = (64 - kStepBits + 1) * kSteps;

  static size_t bucket(uint64_t value) {
    if (value < kSteps) return static_cast<size_t>(value);
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - kStepBits - 1;
    return (size_t{shift} << kStepBits) + static_cast<size_t>(value >> shift);
  }
  static uint64_t middle(size_t index) {
    if (index < 2 * kSteps) return index;
    const auto shift = static_cast<unsigned>(index >> kStepBits) - 1;
    const uint64_t low = uint64_t{(index & (kSteps - 1)) | kSteps} << shift;
    return low + (uint64_t{1} << shift) / 2;
  }

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
};

}  // namespace underlay::bench
