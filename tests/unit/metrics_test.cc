// What is counted, and how it is told.
#include <doctest/doctest.h>

#include "server/metrics/request_metrics.h"

namespace underlay {
namespace {

Request read_of(uint64_t length) { return {.command = nbd::Command::kRead, .length = length}; }

uint64_t latencies(const RequestCounts& counts) {
  uint64_t sum = 0;
  for (const uint64_t bucket : counts.latencies) sum += bucket;
  return sum;
}

}  // namespace

TEST_CASE("request metrics: reads, others and errors are told apart") {
  using std::chrono::microseconds;
  RequestMetrics metrics;
  RequestTally tally;
  CHECK(tally.empty());
  tally.answered(read_of(4096), true);
  tally.answered(read_of(512), true);
  tally.answered({.command = nbd::Command::kFlush}, true);
  tally.answered(read_of(512), false);
  CHECK(tally.has_new());
  tally.answered_now(microseconds(60));
  CHECK_FALSE(tally.has_new());
  tally.answered_late(read_of(100), true, std::chrono::seconds(20));
  metrics.publish(tally);
  CHECK(tally.empty());
  const RequestCounts counts = metrics.counts();
  CHECK(counts.reads == 3);
  CHECK(counts.read_bytes == 4708);
  CHECK(counts.others == 1);
  CHECK(counts.errors == 1);
  CHECK(latencies(counts) == 5);
  CHECK(counts.latencies[0] == 0);
  CHECK(counts.latencies[1] == 4);  // up to 100 us
  CHECK(counts.latencies.back() == 1);
  CHECK(counts.latency_ns == 20'000'240'000);
}

TEST_CASE("request metrics: a bound belongs to its bucket") {
  RequestMetrics metrics;
  for (size_t i = 0; i < kLatencyBounds.size(); ++i) {
    RequestTally tally;
    tally.answered_late(read_of(1), true, kLatencyBounds[i]);
    tally.answered_late(read_of(1), true, kLatencyBounds[i] + std::chrono::nanoseconds(1));
    metrics.publish(tally);
  }
  const RequestCounts counts = metrics.counts();
  CHECK(counts.latencies.front() == 1);
  for (size_t i = 1; i < kLatencyBounds.size(); ++i) CHECK(counts.latencies[i] == 2);
  CHECK(counts.latencies.back() == 1);
}

TEST_CASE("request metrics: what is in flight goes up and down") {
  RequestMetrics metrics;
  metrics.change_in_flight(5);
  metrics.change_in_flight(-3);
  CHECK(metrics.in_flight() == 2);
}

}  // namespace underlay
