#include "tools/thin/origin_table.h"

#include <doctest/doctest.h>

namespace underlay::thin {
namespace {

using Kind = DirectRun::Kind;

TEST_CASE("each run becomes the target that reads it") {
  const std::vector<DirectRun> runs = {
      {.kind = Kind::kFile, .start = 0, .sectors = 8, .file = 1, .file_sector = 100},
      {.kind = Kind::kZero, .start = 8, .sectors = 4},
      {.kind = Kind::kServer, .start = 12, .sectors = 2},
      {.kind = Kind::kFile, .start = 14, .sectors = 1, .file = 0, .file_sector = 7}};
  CHECK(direct_table(runs, {"7:0", "8:16"}, "43:32") ==
        std::vector<DmTarget>{{0, 8, "linear", "8:16 100"},
                              {8, 4, "zero", ""},
                              {12, 2, "linear", "43:32 12"},
                              {14, 1, "linear", "7:0 7"}});
  CHECK(server_table(14, "43:0") == std::vector<DmTarget>{{0, 14, "linear", "43:0 0"}});
}

TEST_CASE("an origin's table says what is read from where") {
  const auto share = share_of({{0, 8, "linear", "8:16 100"},
                               {8, 4, "zero", ""},
                               {12, 2, "linear", "43:32 12"},
                               {14, 1, "linear", "430:0 7"},
                               {15, 1, "linear", "8:16 7"}});
  REQUIRE(share);
  CHECK(share->file_sectors == 10);
  CHECK(share->zero_sectors == 4);
  CHECK(share->server_sectors == 2);
  CHECK(share->sectors() == 16);
  CHECK(share->files == std::vector<std::string>{"8:16", "430:0"});
  CHECK(share->server == "43:32");
}

TEST_CASE("a table with other targets is not an origin's") {
  CHECK_FALSE(share_of({{0, 8, "thin", "253:0 1"}}));
  CHECK_FALSE(share_of({{0, 8, "linear", "43:0 0"}, {8, 8, "error", ""}}));
}

}  // namespace
}  // namespace underlay::thin
