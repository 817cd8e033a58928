// How many requests clients have made of an export, and how long they waited for the answers.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "server/request.h"

namespace underlay {

using Latency = std::chrono::steady_clock::duration;

// Upper bounds of the histogram's buckets; above the last one is one more.
inline constexpr std::array kLatencyBounds = std::to_array<std::chrono::microseconds>(
    {std::chrono::microseconds{50}, std::chrono::microseconds{100}, std::chrono::microseconds{250},
     std::chrono::microseconds{500}, std::chrono::milliseconds{1}, std::chrono::microseconds{2500},
     std::chrono::milliseconds{5}, std::chrono::milliseconds{10}, std::chrono::milliseconds{25},
     std::chrono::milliseconds{50}, std::chrono::milliseconds{100}, std::chrono::milliseconds{250},
     std::chrono::milliseconds{500}, std::chrono::seconds{1}, std::chrono::milliseconds{2500},
     std::chrono::seconds{10}});
inline constexpr size_t kLatencyBuckets = kLatencyBounds.size() + 1;

struct RequestCounts {
  uint64_t reads = 0;  // that were answered with data
  uint64_t read_bytes = 0;
  uint64_t others = 0;  // block status, prefetches, flushes: that succeeded
  uint64_t errors = 0;  // whatever they asked for
  std::array<uint64_t, kLatencyBuckets> latencies{};
  uint64_t latency_ns = 0;  // of all together
};

// What a client's thread has answered since it was last published: plain numbers, so that the hot
// path pays for shared ones once for many requests.
class RequestTally {
 public:
  // A reply to `request` is on its way. What was answered at once waits for answered_now().
  void answered(const Request& request, bool succeeded);
  void answered_late(const Request& request, bool succeeded, Latency latency);
  // All that were counted by answered() since the last call took that long.
  void answered_now(Latency latency);
  bool empty() const { return total_ == 0; }
  bool has_new() const { return at_once_ > 0; }
  uint64_t reads() const { return counts_.reads; }
  uint64_t read_bytes() const { return counts_.read_bytes; }

 private:
  friend class RequestMetrics;
  void count(const Request& request, bool succeeded);
  void note(Latency latency, uint64_t requests);

  RequestCounts counts_;
  uint32_t noted_ = 0;  // bit i: latencies[i] is not 0; in one turn it is mostly one of them
  uint64_t at_once_ = 0;
  uint64_t total_ = 0;
};

// Of one export, over all clients. Thread-safe.
class RequestMetrics {
 public:
  // Adds `tally`, which is empty then.
  void publish(RequestTally& tally);
  // Requests that wait for a disk or a worker: one client has so many more than when it last said
  // so, or fewer.
  void change_in_flight(int64_t change) { in_flight_.fetch_add(change, std::memory_order_relaxed); }

  RequestCounts counts() const;
  uint64_t in_flight() const;

 private:
  using Counter = std::atomic<uint64_t>;
  Counter reads_ = 0;
  Counter read_bytes_ = 0;
  Counter others_ = 0;
  Counter errors_ = 0;
  std::array<Counter, kLatencyBuckets> latencies_{};
  Counter latency_ns_ = 0;
  std::atomic<int64_t> in_flight_ = 0;
};

}  // namespace underlay
