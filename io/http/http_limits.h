// What images on servers may take: time, and memory.
#pragma once

#include <chrono>
#include <cstddef>

namespace underlay {

// What a longer read is split into, and how many of these are under way at the same time.
inline constexpr size_t kHttpPieceBytes = 1 << 20;
inline constexpr size_t kHttpParallel = 4;

// How long a server may keep us waiting, and how often it is asked again.
struct HttpLimits {
  std::chrono::milliseconds connect{10'000};
  std::chrono::seconds stall{15};           // without a byte; then the request is sent again
  std::chrono::milliseconds range{30'000};  // for one range (kHttpPieceBytes), with all tries
  unsigned tries = 8;
  unsigned opening_tries = 3;
  // Between two tries: doubled from the first to the longest, and some of it by chance. A server's
  // Retry-After counts when it is longer.
  std::chrono::milliseconds first_delay{100};
  std::chrono::milliseconds longest_delay{5'000};
  // An upload that is sent again from its start waits for a server that long at most.
  std::chrono::seconds most_retry_after{300};
};

}  // namespace underlay
