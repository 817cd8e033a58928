#include "tools/img/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace underlay::img {

// The first 2 * kSteps buckets have one value each, the following kSteps two each, then four, ...
size_t LatencyHistogram::bucket_of(uint64_t value) {
  if (value < 2 * kSteps) return static_cast<size_t>(value);
  const auto shift = static_cast<unsigned>(std::bit_width(value)) - kStepBits - 1;
  return static_cast<size_t>(shift * kSteps + (value >> shift));
}

uint64_t LatencyHistogram::largest_in(size_t bucket) {
  if (bucket < 2 * kSteps) return bucket;
  const uint64_t shift = bucket / kSteps - 1;
  return ((bucket - shift * kSteps + 1) << shift) - 1;
}

void LatencyHistogram::add(Nanoseconds latency) {
  const auto value = static_cast<uint64_t>(std::max<int64_t>(0, latency.count()));
  ++buckets_[bucket_of(value)];
  ++count_;
  slowest_ = std::max(slowest_, latency);
}

void LatencyHistogram::add_all(const LatencyHistogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  slowest_ = std::max(slowest_, other.slowest_);
}

LatencyHistogram::Nanoseconds LatencyHistogram::percentile(double percent) const {
  const double share = std::ceil(static_cast<double>(count_) * percent / 100);
  auto left = static_cast<uint64_t>(std::max(share, 1.0));
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i] < left) {
      left -= buckets_[i];
      continue;
    }
    return std::min(Nanoseconds(largest_in(i)), slowest_);
  }
  return slowest_;
}

}  // namespace underlay::img
