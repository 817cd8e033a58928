#include "io/log.h"

#include <doctest/doctest.h>

#include <climits>
#include <thread>
#include <vector>

#include "tests/support/stderr_of.h"

namespace underlay {
namespace {

TEST_CASE("log: every line names the program, and what kind of line it is") {
  CHECK(stderr_of([] {
          Log log("prog", false);
          log.error("broken");
          log.warn("odd");
          log.detail("only when verbose");
        }) == Lines{"prog: broken", "prog: warning: odd"});
  CHECK(stderr_of([] { Log("prog", true).detail("seen"); }) == Lines{"prog: seen"});
}

TEST_CASE("log: bytes of a file name or a peer cannot make lines or move the cursor") {
  CHECK(stderr_of([] { Log("prog", false).error("a\nprog: b\x1b[2J\r"); }) ==
        Lines{"prog: a\\x0aprog: b\\x1b[2J\\x0d"});
}

TEST_CASE("log: no line is so long that writing it to a pipe could wait, or be torn") {
  const Lines lines = stderr_of([] { Log("prog", false).warn(std::string(10'000, '\x01')); });
  REQUIRE(lines.size() == 1);
  CHECK(lines.front().size() < PIPE_BUF);
  CHECK(lines.front().size() > PIPE_BUF / 2);
  CHECK(lines.front().substr(lines.front().size() - 3) == "...");
}

TEST_CASE("log: more lines than a person can read are counted and left out") {
  const Lines lines = stderr_of([] {
    Log log("prog", false);
    // A second may end in between: what was left out in it is told then.
    for (int i = 0; i < 500; ++i) log.error("flood");
    std::this_thread::sleep_for(std::chrono::milliseconds(1100));
    log.error("after");
  });
  REQUIRE(lines.size() >= Log::kLinesPerSecond + 2);
  CHECK(lines.size() <= 2 * Log::kLinesPerSecond + 3);
  CHECK(lines.back() == "prog: after");
  CHECK(lines[lines.size() - 2].find("lines were left out") != std::string::npos);
  // Nothing is lost silently.
  size_t told = 0;
  for (const std::string& line : lines) {
    const bool summary = line.find("left out") != std::string::npos;
    told += summary ? static_cast<size_t>(std::stoul(line.substr(line.find(' ')))) : 1;
  }
  CHECK(told == 501);
}

TEST_CASE("log: lines of several threads stay whole") {
  const Lines lines = stderr_of([] {
    Log log("prog", false);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int line = 0; line < 10; ++line) log.error(std::string(300, 'x'));
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  CHECK(lines == Lines(40, "prog: " + std::string(300, 'x')));
}

}  // namespace
}  // namespace underlay
