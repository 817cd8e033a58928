// What has become of requests of an export whose reads failed. Counters for the log, and for
// whoever watches the server.
#pragma once

#include <atomic>
#include <cstdint>

namespace underlay {

// Thread-safe.
class ReadFaults {
 public:
  struct Counts {
    uint64_t held = 0;     // requests that wait to be tried again, or are being
    uint64_t retried = 0;  // tries, after the first of each request
    uint64_t failed = 0;   // requests that were answered with an error
  };

  // A request waits for another try; `first`: for its first one. True when no other did before.
  bool hold(bool first) {
    retried_.fetch_add(1, std::memory_order_relaxed);
    return first && held_.fetch_add(1, std::memory_order_relaxed) == 0;
  }
  // That request is done with, in whatever way. True when no other waits.
  bool release() { return held_.fetch_sub(1, std::memory_order_relaxed) == 1; }
  void fail() { failed_.fetch_add(1, std::memory_order_relaxed); }

  Counts counts() const { return {.held = held_, .retried = retried_, .failed = failed_}; }

 private:
  std::atomic<uint64_t> held_ = 0;
  std::atomic<uint64_t> retried_ = 0;
  std::atomic<uint64_t> failed_ = 0;
};

}  // namespace underlay
