#include "tools/img/data_map.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>

#include "io/memory_source.h"
#include "tests/support/temp_folder.h"

namespace underlay::img {
namespace {

Result<std::vector<DataRange>> parsed(const std::string& text) {
  const TempFolder folder;
  const std::string path = folder.path("map.json");
  std::ofstream(path) << text;
  return read_data_map(path);
}

TEST_CASE("data map: ranges with data, merged") {
  const auto ranges = parsed(
      R"([{"start": 0, "length": 10, "depth": 0, "zero": true, "data": false},
          {"start": 10, "length": 5, "data": true}, {"start": 15, "length": 5, "data": true},
          {"start": 100, "length": 1, "data": true}])");
  REQUIRE(ranges);
  CHECK(*ranges == std::vector<DataRange>{{10, 20}, {100, 101}});
  CHECK(parsed("[]")->empty());
}

TEST_CASE("data map: what is no map is refused") {
  for (const char* text :
       {"", "{}", "7", "[7]", "[{}]", R"([{"start": 0, "length": 1}])",
        R"([{"start": 0, "length": 0, "data": true}])",
        R"([{"start": -1, "length": 1, "data": true}])",
        R"([{"start": 5, "length": 1, "data": true}, {"start": 5, "length": 1, "data": true}])",
        R"([{"start": 18446744073709551615, "length": 2, "data": true}])",
        R"([{"start": 0, "length": 1, "data": 1}])",
        R"([{"start": 0, "length": 1, "data": true})"}) {
    CAPTURE(text);
    const auto ranges = parsed(text);
    REQUIRE_FALSE(ranges);
    CHECK(ranges.error().kind == ErrorKind::kMalformed);
  }
  CHECK(read_data_map("/nonexistent/map").error().sys_errno == ENOENT);
}

TEST_CASE("data map: what lies outside is never read") {
  std::vector<std::byte> bytes(100, std::byte{7});
  const auto mapped = with_data_map(std::make_shared<MemorySource>(std::move(bytes), "m"),
                                    {{10, 20}, {50, 60}}, FileHoles::kHoles);
  std::vector<std::byte> out(100);
  REQUIRE(mapped->read_at(0, out));
  for (size_t i = 0; i < out.size(); ++i) {
    const bool has_data = (i >= 10 && i < 20) || (i >= 50 && i < 60);
    CHECK(out[i] == (has_data ? std::byte{7} : std::byte{0}));
  }
  const auto run = [&](uint64_t offset, uint64_t length) {
    const SourceRun found = mapped->run_at(offset, length);
    return std::pair(found.hole, found.length);
  };
  CHECK(run(0, 100) == std::pair(true, uint64_t{10}));
  CHECK(run(0, 4) == std::pair(true, uint64_t{4}));
  CHECK(run(12, 100 - 12) == std::pair(false, uint64_t{8}));
  CHECK(run(20, 80) == std::pair(true, uint64_t{30}));
  CHECK(run(60, 40) == std::pair(true, uint64_t{40}));
  CHECK_FALSE(mapped->read_at(99, MutableByteSpan(out).first(2)));
}

// A file that is all hole.
class HoleSource final : public Source {
 public:
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return 100; }
  Result<void> read_at(uint64_t, MutableByteSpan out) const override {
    std::ranges::fill(out, std::byte{0});
    return {};
  }
  SourceRun run_at(uint64_t, uint64_t length) const override {
    return {.hole = true, .length = length};
  }

 private:
  std::string name_ = "hole";
};

TEST_CASE("data map: holes of the file within it are holes, or data of an overlay") {
  for (const auto holes : {FileHoles::kHoles, FileHoles::kData}) {
    const auto mapped = with_data_map(std::make_shared<HoleSource>(), {{10, 20}}, holes);
    CHECK(mapped->run_at(0, 100).hole);
    CHECK(mapped->run_at(12, 88).hole == (holes == FileHoles::kHoles));
    CHECK(mapped->run_at(12, 88).length == 8);
  }
}

}  // namespace
}  // namespace underlay::img
