#include "tools/thin/steps.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace underlay::thin {
namespace {

// Steps that write what they do into `log`.
Step logged(std::string& log, const std::string& name) {
  return {.name = name,
          .words = "do " + name,
          .run = [&log, name]() -> Result<void> {
            log += "+" + name;
            return {};
          },
          .undo = [&log, name]() -> Result<void> {
            log += "-" + name;
            return {};
          }};
}

Step failing(const std::string& name) {
  return {.name = name,
          .words = "",
          .run = []() -> Result<void> { return fail(ErrorKind::kIo, "it broke"); },
          .undo = {}};
}

TEST_CASE("steps: all run in order, and the report names them") {
  std::string log;
  StepReport report;
  CHECK(run_steps({logged(log, "a"), logged(log, "b")}, report));
  CHECK(log == "+a+b");
  REQUIRE(report.done.size() == 2);
  CHECK(report.done[1].name == "b");
  CHECK(report.done[1].words == "do b");
}

TEST_CASE("steps: after a failure those that were done are undone backwards, the failed one not") {
  std::string log;
  StepReport report;
  Step broken = logged(log, "c");
  broken.run = failing("c").run;
  const auto result =
      run_steps({logged(log, "a"), logged(log, "b"), broken, logged(log, "d")}, report);
  REQUIRE_FALSE(result);
  CHECK(result.error().message == "it broke");
  CHECK(log == "+a+b-b-a");
}

TEST_CASE("steps: an undo that fails is told, and the others are undone all the same") {
  std::string log;
  StepReport report;
  Step stuck = logged(log, "b");
  stuck.undo = failing("b").run;
  Step none = logged(log, "n");
  none.undo = {};
  const auto result = run_steps({logged(log, "a"), none, stuck, failing("c")}, report);
  REQUIRE_FALSE(result);
  CHECK(result.error().message ==
        "it broke; taking back 'b' failed too (it broke): run 'underlay-thin fsck'");
  CHECK(log == "+a+n+b-a");
}

TEST_CASE("steps: a signal that is held back ends them between two steps") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    hold_signals();
    std::string log;
    StepReport report;
    Step signalled = logged(log, "b");
    signalled.run = []() -> Result<void> {
      ::kill(::getpid(), SIGTERM);
      return {};
    };
    const auto result = run_steps({logged(log, "a"), signalled, logged(log, "c")}, report);
    ::_exit(!result && log == "+a-b-a" ? 0 : 1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace underlay::thin
