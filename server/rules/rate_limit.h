// How many bytes and requests a second the clients of an export may have, all together.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace underlay {

// The generic cell rate algorithm (ITU-T I.371): each request takes up a span of time, and may
// begin once the spans before it are over, or a burst earlier. Thread-safe.
class RateLimit {
 public:
  using Clock = std::chrono::steady_clock;

  // Zero: no limit.
  RateLimit(uint64_t bytes_per_second, uint64_t requests_per_second)
      : bytes_per_second_(bytes_per_second), requests_per_second_(requests_per_second) {}

  bool is_limited() const { return bytes_per_second_ != 0 || requests_per_second_ != 0; }

  // Nobody stands in line: who asks when the time has come goes first. Zero: the request may begin,
  // and counts. Else how long to wait before asking again.
  Clock::duration take(uint64_t bytes, Clock::time_point now);

  // What may be used at once after a silence.
  static constexpr std::chrono::milliseconds kBurst{100};

 private:
  int64_t span_of(uint64_t bytes) const;

  const uint64_t bytes_per_second_;
  const uint64_t requests_per_second_;
  std::atomic<int64_t> free_at_ = 0;  // nanoseconds of Clock
};

}  // namespace underlay
