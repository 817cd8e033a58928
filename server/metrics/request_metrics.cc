#include "server/metrics/request_metrics.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace underlay {
namespace {

size_t bucket_of(Latency latency) {
  const auto bound = std::lower_bound(kLatencyBounds.begin(), kLatencyBounds.end(), latency);
  return static_cast<size_t>(bound - kLatencyBounds.begin());
}

void add(std::atomic<uint64_t>& counter, uint64_t value) {
  if (value != 0) counter.fetch_add(value, std::memory_order_relaxed);
}

}  // namespace

void RequestTally::answered(const Request& request, bool succeeded) {
  count(request, succeeded);
  ++at_once_;
}

void RequestTally::answered_late(const Request& request, bool succeeded, Latency latency) {
  count(request, succeeded);
  note(latency, 1);
}

void RequestTally::answered_now(Latency latency) { note(latency, std::exchange(at_once_, 0)); }

void RequestTally::count(const Request& request, bool succeeded) {
  ++total_;
  if (!succeeded) {
    ++counts_.errors;
  } else if (request.command == nbd::Command::kRead) {
    ++counts_.reads;
    counts_.read_bytes += request.length;
  } else {
    ++counts_.others;
  }
}

void RequestTally::note(Latency latency, uint64_t requests) {
  const auto time = std::max(latency, Latency::zero());
  const size_t bucket = bucket_of(time);
  counts_.latencies[bucket] += requests;
  noted_ |= uint32_t{1} << bucket;
  counts_.latency_ns +=
      requests *
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
}

void RequestMetrics::publish(RequestTally& tally) {
  static_assert(kLatencyBuckets <= 32);
  RequestCounts& counts = tally.counts_;
  add(reads_, std::exchange(counts.reads, 0));
  add(read_bytes_, std::exchange(counts.read_bytes, 0));
  add(others_, std::exchange(counts.others, 0));
  add(errors_, std::exchange(counts.errors, 0));
  for (uint32_t left = tally.noted_; left != 0; left &= left - 1) {
    const auto i = static_cast<size_t>(std::countr_zero(left));
    add(latencies_[i], std::exchange(counts.latencies[i], 0));
  }
  add(latency_ns_, std::exchange(counts.latency_ns, 0));
  tally.noted_ = 0;
  tally.total_ = 0;
}

RequestCounts RequestMetrics::counts() const {
  RequestCounts counts{.reads = reads_,
                       .read_bytes = read_bytes_,
                       .others = others_,
                       .errors = errors_,
                       .latencies = {},
                       .latency_ns = latency_ns_};
  for (size_t i = 0; i < kLatencyBuckets; ++i) counts.latencies[i] = latencies_[i];
  return counts;
}

uint64_t RequestMetrics::in_flight() const {
  return static_cast<uint64_t>(std::max<int64_t>(0, in_flight_.load(std::memory_order_relaxed)));
}

}  // namespace underlay
