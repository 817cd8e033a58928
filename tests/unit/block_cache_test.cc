#include "formats/block_cache.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <thread>

namespace underlay {
namespace {

constexpr uint64_t kOneShard = 8 << 20;  // below two of the smallest shards

Result<void> fill(MutableByteSpan out, std::byte value) {
  std::fill(out.begin(), out.end(), value);
  return {};
}
auto filler(int value) {
  return [value](MutableByteSpan out) { return fill(out, static_cast<std::byte>(value)); };
}

TEST_CASE("a block is loaded once and found from then on") {
  BlockCache cache(kOneShard);
  int loads = 0;
  const auto load = [&](MutableByteSpan out) {
    ++loads;
    return fill(out, std::byte{7});
  };
  CHECK(!cache.find({1, 0}));
  const auto block = *cache.get({1, 0}, 100, load);
  CHECK(block->size() == 100);
  CHECK(block->at(99) == std::byte{7});
  CHECK(*cache.get({1, 0}, 100, load) == block);
  CHECK(cache.find({1, 0}) == block);
  CHECK(loads == 1);
  CHECK(cache.used() == 100);
}

TEST_CASE("blocks of other owners and offsets are others") {
  BlockCache cache(kOneShard);
  REQUIRE(cache.get({1, 0}, 10, filler(1)));
  REQUIRE(cache.get({2, 0}, 10, filler(2)));
  REQUIRE(cache.get({1, 512}, 10, filler(3)));
  CHECK(cache.find({1, 0})->front() == std::byte{1});
  CHECK(cache.find({2, 0})->front() == std::byte{2});
  CHECK(cache.find({1, 512})->front() == std::byte{3});
}

TEST_CASE("a failed load fails the caller and is not kept") {
  BlockCache cache(kOneShard);
  const auto failed = cache.get({1, 0}, 10, [](MutableByteSpan) -> Result<void> {
    return fail(ErrorKind::kTruncated, "too short");
  });
  REQUIRE(!failed);
  CHECK(failed.error().kind == ErrorKind::kTruncated);
  CHECK(!cache.find({1, 0}));
  CHECK(cache.used() == 0);
  CHECK(cache.get({1, 0}, 10, filler(1)));
}

TEST_CASE("a load that throws does not block the next") {
  BlockCache cache(kOneShard);
  const auto throws = [](MutableByteSpan) -> Result<void> { throw std::bad_alloc(); };
  CHECK_THROWS_AS((void)cache.get({1, 0}, 10, throws), std::bad_alloc);
  CHECK(cache.get({1, 0}, 10, filler(1)));
}

TEST_CASE("the budget holds, and what was used longest ago goes first") {
  BlockCache cache(kOneShard);
  constexpr size_t kQuarter = kOneShard / 4;
  for (uint64_t i = 0; i < 4; ++i) REQUIRE(cache.get({1, i}, kQuarter, filler(1)));
  CHECK(cache.used() == kOneShard);
  CHECK(cache.find({1, 0}));  // now the most recent
  REQUIRE(cache.get({1, 4}, kQuarter, filler(1)));
  CHECK(cache.used() == kOneShard);
  CHECK(cache.find({1, 0}));
  CHECK(!cache.find({1, 1}));
  CHECK(cache.find({1, 2}));
}

TEST_CASE("the budget holds over many shards") {
  constexpr uint64_t kBudget = 64 << 20;
  BlockCache cache(kBudget);
  for (uint64_t i = 0; i < 3000; ++i) REQUIRE(cache.get({i % 7, i << 16}, 65536, filler(1)));
  CHECK(cache.used() <= kBudget);
  CHECK(cache.used() > kBudget / 2);
}

TEST_CASE("a handle keeps its block after eviction") {
  BlockCache cache(kOneShard);
  const auto handle = *cache.get({1, 0}, kOneShard, filler(9));
  REQUIRE(cache.get({1, 1}, kOneShard, filler(1)));
  CHECK(!cache.find({1, 0}));
  CHECK(handle->size() == kOneShard);
  CHECK(handle->back() == std::byte{9});
}

TEST_CASE("a block above the budget is given but not kept, and evicts nothing") {
  BlockCache cache(kOneShard);
  REQUIRE(cache.get({1, 0}, 100, filler(1)));
  const auto large = cache.get({1, 1}, kOneShard + 1, filler(2));
  REQUIRE(large);
  CHECK((*large)->back() == std::byte{2});
  CHECK(!cache.find({1, 1}));
  CHECK(cache.find({1, 0}));
}

TEST_CASE("a cache without a budget keeps nothing") {
  BlockCache cache(0);
  CHECK(cache.get({1, 0}, 1, filler(1)));
  CHECK(!cache.find({1, 0}));
  CHECK(cache.used() == 0);
}

TEST_CASE("many threads that ask for one block load it once") {
  BlockCache cache(kOneShard);
  std::atomic<int> loads = 0;
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto block = cache.get({1, 0}, 1000, [&](MutableByteSpan out) {
        ++loads;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return fill(out, std::byte{5});
      });
      if (block && (*block)->back() == std::byte{5}) ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(loads == 1);
  CHECK(right == 8);
}

TEST_CASE("threads that wait for a load that fails try for themselves") {
  BlockCache cache(kOneShard);
  std::atomic<int> loads = 0;
  std::atomic<int> good = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto block = cache.get({1, 0}, 10, [&](MutableByteSpan out) -> Result<void> {
        const int number = ++loads;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        if (number == 1) return fail(ErrorKind::kIo, "once");
        return fill(out, std::byte{1});
      });
      if (block) ++good;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(loads == 2);
  CHECK(good == 3);
}

}  // namespace
}  // namespace underlay
