#include "formats/inspection/block_places.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace underlay {
namespace {

std::vector<BlockPlace> some_blocks(size_t count) {
  std::vector<BlockPlace> blocks;
  uint64_t state = 1;
  for (uint64_t entry = 0; entry < count; ++entry) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    blocks.push_back({.place = state >> 60, .entry = entry});  // many are at the same place
  }
  return blocks;
}

TEST_CASE("block places: all come in ascending order, however few are in memory") {
  const std::vector<BlockPlace> blocks = some_blocks(1000);
  std::vector<BlockPlace> sorted = blocks;
  std::sort(sorted.begin(), sorted.end());
  for (const size_t in_a_pass : {1u, 7u, 499u, 500u, 501u, 1000u, 5000u}) {
    size_t passes = 0;
    std::vector<BlockPlace> seen;
    const auto done = in_ascending_order(
        [&](const TellBlock& tell) -> Result<void> {
          ++passes;
          for (const BlockPlace& block : blocks) tell(block);
          return {};
        },
        [&](const BlockPlace& block) -> Result<void> {
          seen.push_back(block);
          return {};
        },
        in_a_pass);
    INFO("in a pass: ", in_a_pass);
    CHECK(done);
    CHECK(seen == sorted);
    CHECK(passes <= blocks.size() / in_a_pass + 1);
  }
}

TEST_CASE("block places: nothing to tell, and failures on both sides") {
  const auto broken = [](auto&&...) -> Result<void> { return fail(ErrorKind::kIo, "broken"); };
  const auto fine = [](auto&&...) -> Result<void> { return {}; };
  const auto one = [](const TellBlock& tell) -> Result<void> {
    tell({.place = 1, .entry = 1});
    return {};
  };
  CHECK(in_ascending_order(fine, broken));
  CHECK_FALSE(in_ascending_order(broken, fine));
  CHECK_FALSE(in_ascending_order(one, broken));
  CHECK(in_ascending_order(one, fine));
}

TEST_CASE("block places: more than the passes take are said not to be looked at") {
  CHECK_FALSE(too_many_to_order(kMaxPasses * kBlocksInAPass));
  const auto finding = too_many_to_order(uint64_t{1} << 32);
  REQUIRE(finding);
  CHECK(finding->kind == Finding::Kind::kFailure);
  CHECK(finding->message.find("4294967296") != std::string::npos);
}

}  // namespace
}  // namespace underlay
