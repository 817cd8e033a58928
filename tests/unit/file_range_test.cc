#include "formats/file_range.h"

#include <doctest/doctest.h>

#include <limits>

namespace underlay {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

// Both ways round.
bool overlap(const FileRange& a, const FileRange& b) {
  CHECK(a.overlaps(b) == b.overlaps(a));
  return a.overlaps(b);
}

TEST_CASE("ranges overlap when they have a byte in common") {
  CHECK(overlap({10, 5}, {10, 5}));
  CHECK(overlap({10, 5}, {14, 1}));
  CHECK(overlap({10, 5}, {0, 11}));
  CHECK(overlap({10, 5}, {12, 1}));
  CHECK_FALSE(overlap({10, 5}, {15, 1}));
  CHECK_FALSE(overlap({10, 5}, {0, 10}));
}

TEST_CASE("an empty range overlaps nothing") {
  CHECK_FALSE(overlap({10, 5}, {12, 0}));
  CHECK_FALSE(overlap({0, 0}, {0, 0}));
}

TEST_CASE("ranges that end beyond 2^64 do not wrap") {
  CHECK(overlap({kMax, 2}, {kMax - 1, kMax}));
  CHECK_FALSE(overlap({kMax, 2}, {0, 10}));
  CHECK_FALSE(overlap({1, kMax}, {0, 1}));
}

}  // namespace
}  // namespace underlay
