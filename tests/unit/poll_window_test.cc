// When looking for work instead of sleeping pays.
#include "io/poll_window.h"

#include <doctest/doctest.h>

namespace underlay {
namespace {

using std::chrono::microseconds;
using std::chrono::seconds;

TEST_CASE("poll window: closed at first, and always without a limit") {
  PollWindow none;
  CHECK_FALSE(none.enabled());
  none.waited(microseconds(0));
  none.waited(microseconds(1));
  CHECK(none.length() == microseconds(0));
  CHECK(PollWindow(microseconds(50)).length() == microseconds(0));
}

TEST_CASE("poll window: grows while work comes soon, up to its limit") {
  PollWindow window(microseconds(50));
  window.waited(microseconds(40));
  CHECK(window.length() > microseconds(0));
  CHECK(window.length() < microseconds(50));
  for (int i = 0; i < 10; ++i) window.waited(microseconds(50));
  CHECK(window.length() == microseconds(50));
}

TEST_CASE("poll window: is no longer than what the work needs") {
  PollWindow window(microseconds(1000));
  for (int i = 0; i < 10; ++i) window.waited(microseconds(5));
  CHECK(window.length() < microseconds(20));
}

TEST_CASE("poll window: one wait beyond the limit closes it") {
  PollWindow window(microseconds(50));
  for (int i = 0; i < 10; ++i) window.waited(microseconds(30));
  REQUIRE(window.length() > microseconds(0));
  window.waited(microseconds(51));
  CHECK(window.length() == microseconds(0));
  window.waited(seconds(1));
  CHECK(window.length() == microseconds(0));
}

}  // namespace
}  // namespace underlay
