#include "formats/inspection/check_report.h"

#include <doctest/doctest.h>

#include <vector>

namespace underlay::test {
namespace {

using Kind = Finding::Kind;

TEST_CASE("check report: of many findings the first are told, and all are counted") {
  uint64_t told = 0;
  uint64_t worded = 0;
  CheckReport report([&](const Finding&) { ++told; }, [](uint64_t, uint64_t) { return true; });
  const auto make = [&] {
    ++worded;
    return Finding{.kind = Kind::kCorruption, .code = "wrong", .message = "is wrong"};
  };
  for (uint64_t i = 0; i < CheckReport::kMaxTold - 1; ++i) report.add(Kind::kCorruption, make);
  report.add(Finding{.kind = Kind::kLeak, .code = "leak", .message = "is lost"}, 5);
  CHECK(told == CheckReport::kMaxTold);
  CHECK(report.untold() == 0);
  for (int i = 0; i < 3; ++i) report.add(Kind::kCorruption, make);
  report.add(Finding{.kind = Kind::kLeak, .code = "leak", .message = "is lost"}, 5);
  CHECK(told == CheckReport::kMaxTold);
  CHECK(worded == CheckReport::kMaxTold - 1);
  CHECK(report.untold() == 4);
  CHECK(report.count(Kind::kCorruption) == CheckReport::kMaxTold - 1 + 3);
  CHECK(report.count(Kind::kLeak) == 10);
}

TEST_CASE("check report: what is only counted may count more than once") {
  CheckReport report([](const Finding&) {}, [](uint64_t, uint64_t) { return true; });
  const auto make = [] { return Finding{.kind = Kind::kLeak, .code = "leak", .message = "lost"}; };
  for (uint64_t i = 0; i < CheckReport::kMaxTold + 2; ++i) report.add(Kind::kLeak, make, 3);
  CHECK(report.count(Kind::kLeak) == 3 * (CheckReport::kMaxTold + 2));
  CHECK(report.untold() == 2);
}

TEST_CASE("check report: the place of an error is a field, and not in its words as well") {
  std::vector<Finding> told;
  CheckReport report([&](const Finding& finding) { told.push_back(finding); },
                     [](uint64_t, uint64_t) { return true; });
  report.add("wrong", in_file(fail(ErrorKind::kMalformed, "is wrong"), "extent", 512).value());
  REQUIRE(told.size() == 1);
  CHECK(told[0].message == "extent: is wrong");
  CHECK(told[0].offset == 512);
}

}  // namespace
}  // namespace underlay::test
