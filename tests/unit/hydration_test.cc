#include "tools/thin/hydration.h"

#include <doctest/doctest.h>

namespace underlay::thin {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kBlock = 128;  // sectors

std::string text(const BlockRuns& runs) {
  std::string out;
  for (const MappedRun& run : runs) {
    out += fmt::format("{}{}+{}", out.empty() ? "" : " ", run.first_block, run.blocks);
  }
  return out;
}

TEST_CASE("hydration: a block with one sector of data is a block with data") {
  CHECK(text(blocks_with_data({{.start = 0, .sectors = 1}}, kBlock, 1000)) == "0+1");
  CHECK(text(blocks_with_data({{.start = 127, .sectors = 2}}, kBlock, 1000)) == "0+2");
  CHECK(text(blocks_with_data({{.start = 128, .sectors = 128}}, kBlock, 1000)) == "1+1");
}

TEST_CASE("hydration: runs in one block, and in neighbours, become one run") {
  const std::vector<AllocatedRun> data{{.start = 0, .sectors = 8},
                                       {.start = 64, .sectors = 8},
                                       {.start = 128, .sectors = 8},
                                       {.start = 512, .sectors = 8}};
  CHECK(text(blocks_with_data(data, kBlock, 1000)) == "0+2 4+1");
}

TEST_CASE("hydration: what lies behind the volume's end is not copied, its last part block is") {
  CHECK(text(blocks_with_data({{.start = 0, .sectors = 10'000}}, kBlock, 130)) == "0+2");
  CHECK(text(blocks_with_data({{.start = 256, .sectors = 8}}, kBlock, 256)).empty());
}

TEST_CASE("hydration: mapped blocks are left out, wherever they overlap") {
  const BlockRuns blocks{{.first_block = 10, .blocks = 10}, {.first_block = 30, .blocks = 5}};
  CHECK(text(without(blocks, {})) == "10+10 30+5");
  CHECK(text(without(blocks, {{.first_block = 0, .blocks = 100}})).empty());
  CHECK(text(without(blocks, {{.first_block = 0, .blocks = 12}})) == "12+8 30+5");
  CHECK(text(without(blocks, {{.first_block = 15, .blocks = 17}})) == "10+5 32+3");
  CHECK(text(without(blocks, {{.first_block = 12, .blocks = 1},
                              {.first_block = 14, .blocks = 1}})) == "10+2 13+1 15+5 30+5");
  CHECK(text(without({}, blocks)).empty());
}

TEST_CASE("hydration: runs in any order are merged") {
  CHECK(text(normalized({{.first_block = 5, .blocks = 5},
                         {.first_block = 1, .blocks = 2},
                         {.first_block = 3, .blocks = 2},
                         {.first_block = 6, .blocks = 1}})) == "1+9");
}

TEST_CASE("hydration: batches are taken off the front until nothing is left") {
  BlockRuns left{{.first_block = 0, .blocks = 3}, {.first_block = 8, .blocks = 3}};
  CHECK(text(take_front(left, 4)) == "0+3 8+1");
  CHECK(text(left) == "9+2");
  CHECK(text(take_front(left, 4)) == "9+2");
  CHECK(left.empty());
  CHECK(take_front(left, 4).empty());
}

TEST_CASE("hydration: a pool's low-water mark and the state of its metadata stop it") {
  PoolStatus pool;
  pool.total_data = 100;
  pool.used_data = 50;
  pool.low_water_blocks = 10;
  pool.total_metadata = 1000;
  pool.used_metadata = 10;
  pool.mode = "rw";
  CHECK(check_room(pool, 40, "pool", 65536));
  const auto refused = check_room(pool, 41, "pool", 65536);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("pool grow pool") != std::string::npos);
  pool.used_data = 95;  // below the mark already
  CHECK_FALSE(check_room(pool, 1, "pool", 65536));
  pool.used_data = 0;
  pool.used_metadata = 999;
  CHECK_FALSE(check_room(pool, 1, "pool", 65536));
  pool.used_metadata = 10;
  pool.needs_check = true;
  CHECK_FALSE(check_room(pool, 1, "pool", 65536));
}

TEST_CASE("hydration: batches follow the guest's pauses, by a factor of two at most") {
  BatchPace pace(65536, std::nullopt);
  CHECK(pace.blocks() == 16);
  pace.paused(16, milliseconds(1));
  CHECK(pace.blocks() == 32);
  pace.paused(32, milliseconds(500));
  CHECK(pace.blocks() == 16);
  pace.paused(16, milliseconds(25));
  CHECK(pace.blocks() == 16);
  for (int i = 0; i < 20; ++i) pace.paused(pace.blocks(), milliseconds(0));
  CHECK(pace.blocks() == BatchPace::kMaxBytes / 65536);
  for (int i = 0; i < 20; ++i) pace.paused(pace.blocks(), milliseconds(500));
  CHECK(pace.blocks() == 1);
}

TEST_CASE("hydration: a rate and large blocks bound a batch; one block is always allowed") {
  CHECK(BatchPace(65536, 4 * 65536).blocks() == 1);
  CHECK(BatchPace(65536, 1).blocks() == 1);
  CHECK(BatchPace(uint64_t{1} << 30, std::nullopt).blocks() == 1);
}

}  // namespace
}  // namespace underlay::thin
