// Percentiles out of a fixed amount of memory.
#include "tools/img/latency_histogram.h"

#include <doctest/doctest.h>

#include <limits>

namespace underlay::img {
namespace {

using Nanoseconds = LatencyHistogram::Nanoseconds;

TEST_CASE("latency histogram: none took any time") {
  const LatencyHistogram none;
  CHECK(none.count() == 0);
  CHECK(none.percentile(50) == Nanoseconds(0));
  CHECK(none.slowest() == Nanoseconds(0));
}

TEST_CASE("latency histogram: small numbers are exact") {
  LatencyHistogram latencies;
  for (int64_t i = 1; i <= 60; ++i) latencies.add(Nanoseconds(i));
  CHECK(latencies.percentile(50) == Nanoseconds(30));
  CHECK(latencies.percentile(0) == Nanoseconds(1));
  CHECK(latencies.percentile(100) == Nanoseconds(60));
}

TEST_CASE("latency histogram: a percentile is right within its steps, and never too small") {
  for (int64_t value = 1; value < std::numeric_limits<int64_t>::max() / 3;
       value = value * 2 + value / 3 + 1) {
    LatencyHistogram latencies;
    for (int i = 0; i < 9; ++i) latencies.add(Nanoseconds(value));
    latencies.add(Nanoseconds(std::numeric_limits<int64_t>::max()));
    CAPTURE(value);
    const auto median = static_cast<double>(latencies.percentile(50).count());
    CHECK(median >= static_cast<double>(value));
    CHECK(median <= static_cast<double>(value) * (1 + 1.0 / LatencyHistogram::kSteps));
    CHECK(latencies.slowest() == Nanoseconds(std::numeric_limits<int64_t>::max()));
  }
}

TEST_CASE("latency histogram: several are one") {
  LatencyHistogram fast;
  LatencyHistogram slow;
  for (int i = 0; i < 99; ++i) fast.add(Nanoseconds(10));
  slow.add(Nanoseconds(1000));
  fast.add_all(slow);
  CHECK(fast.count() == 100);
  CHECK(fast.percentile(99) == Nanoseconds(10));
  CHECK(fast.percentile(99.9) == Nanoseconds(1000));
  CHECK(fast.slowest() == Nanoseconds(1000));
}

}  // namespace
}  // namespace underlay::img
