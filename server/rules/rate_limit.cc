#include "server/rules/rate_limit.h"

#include <algorithm>

namespace underlay {
namespace {

using std::chrono::duration_cast;
using std::chrono::nanoseconds;

}  // namespace

int64_t RateLimit::span_of(uint64_t bytes) const {
  constexpr double kSecond = 1e9;
  double span = 0;
  if (bytes_per_second_ != 0) {
    span = static_cast<double>(bytes) * kSecond / static_cast<double>(bytes_per_second_);
  }
  if (requests_per_second_ != 0) {
    span = std::max(span, kSecond / static_cast<double>(requests_per_second_));
  }
  return static_cast<int64_t>(span);
}

RateLimit::Clock::duration RateLimit::take(uint64_t bytes, Clock::time_point now) {
  if (!is_limited()) return Clock::duration::zero();
  const int64_t time = duration_cast<nanoseconds>(now.time_since_epoch()).count();
  const int64_t earliest = time - duration_cast<nanoseconds>(kBurst).count();
  const int64_t span = span_of(bytes);
  int64_t free_at = free_at_.load(std::memory_order_relaxed);
  for (;;) {
    const int64_t begin = std::max(free_at, earliest);
    if (begin > time) return nanoseconds(begin - time);
    if (free_at_.compare_exchange_weak(free_at, begin + span, std::memory_order_relaxed)) {
      return Clock::duration::zero();
    }
  }
}

}  // namespace underlay
