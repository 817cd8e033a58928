#include "tools/thin/retry_delay.h"

#include <doctest/doctest.h>

namespace underlay::thin {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const RetryDelay::Time kStart = RetryDelay::Time{} + seconds(1000);

TEST_CASE("the first attempt is made at once") {
  RetryDelay delay;
  CHECK(delay.next(kStart) == kStart);
}

TEST_CASE("attempts that follow each other wait 50 ms, then twice as long, at most 5 s") {
  RetryDelay delay;
  auto now = kStart;
  milliseconds expected{50};
  for (int i = 0; i < 12; ++i) {
    delay.ended(now);
    const auto next = delay.next(now);
    CHECK(next - now == expected);
    now = next;
    expected = std::min(2 * expected, milliseconds(5000));
  }
}

TEST_CASE("an attempt that is needed later than the delay is made at once") {
  RetryDelay delay;
  delay.ended(kStart);
  CHECK(delay.next(kStart + milliseconds(200)) == kStart + milliseconds(200));
}

TEST_CASE("after ten quiet seconds the delay begins anew") {
  RetryDelay delay;
  for (int i = 0; i < 8; ++i) delay.ended(kStart);
  CHECK(delay.next(kStart + seconds(10)) == kStart + seconds(10));
  delay.ended(kStart + seconds(10));
  CHECK(delay.next(kStart + seconds(10)) == kStart + seconds(10) + milliseconds(50));
}

}  // namespace
}  // namespace underlay::thin
