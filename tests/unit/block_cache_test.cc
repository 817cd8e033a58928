#include "formats/block_cache.h"

#include <doctest/doctest.h>

#include <random>
#include <stdexcept>
#include <thread>

namespace underlay {
namespace {

constexpr uint64_t kOneShard = 8 << 20;  // below two of the smallest shards
constexpr uint64_t kBudget = 64 << 20;
constexpr uint64_t kCluster = 64 << 10;
constexpr uint64_t kEntry = BlockCache::kEntryBytes;

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
  CHECK(block->back() == std::byte{7});
  CHECK(*cache.get({1, 0}, 100, load) == block);
  CHECK(cache.find({1, 0}) == block);
  CHECK(loads == 1);
  CHECK(cache.used() == 100 + kEntry);
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
  CHECK(cache.used() == 10);  // memory for the next block
  CHECK(cache.get({1, 0}, 10, filler(1)));
}

TEST_CASE("a load that throws does not block the next") {
  BlockCache cache(kOneShard);
  const auto throws = [](MutableByteSpan) -> Result<void> { throw std::bad_alloc(); };
  CHECK_THROWS_AS((void)cache.get({1, 0}, 10, throws), std::bad_alloc);
  CHECK(cache.get({1, 0}, 10, filler(1)));
}

// Loads the cluster when it is not there, and uses it as a client does that reads it in pieces.
bool use(BlockCache& cache, uint64_t owner, uint64_t number, int pieces = 1) {
  const bool was_there = cache.find({owner, number * kCluster}) != nullptr;
  for (int i = 0; i < pieces; ++i) {
    REQUIRE(cache.get({owner, number * kCluster}, kCluster, filler(1)));
  }
  return was_there;
}
uint64_t still_there(BlockCache& cache, uint64_t owner, uint64_t count) {
  uint64_t found = 0;
  for (uint64_t i = 0; i < count; ++i) found += cache.find({owner, i * kCluster}) ? 1u : 0u;
  return found;
}

TEST_CASE("the budget holds, whatever the sizes, what an entry costs included") {
  for (const uint64_t size : {1ull, 100ull, 16ull << 10, 64ull << 10, 2ull << 20}) {
    CAPTURE(size);
    BlockCache cache(kBudget / 4);
    for (uint64_t i = 0; i < 2 * kBudget / 4 / (size + kEntry) + 100; ++i) {
      REQUIRE(cache.get({i % 7, i << 21}, size, filler(1)));
      if (i % 64 == 0) REQUIRE(cache.used() <= kBudget / 4);
    }
    CHECK(cache.used() <= kBudget / 4);
    CHECK(cache.used() > kBudget / 8);
  }
}

TEST_CASE("the budget holds while sizes change") {
  BlockCache cache(kBudget);
  const uint64_t sizes[] = {4096, 2 << 20, 64 << 10, 1 << 20, 16 << 10};
  for (uint64_t i = 0; i < 4000; ++i) {
    REQUIRE(cache.get({1, i << 12}, sizes[i / 100 % 5], filler(1)));
    REQUIRE(cache.used() <= kBudget);
  }
}

TEST_CASE("a scan leaves what is used often in the cache") {
  BlockCache cache(kBudget);
  constexpr uint64_t kHot = kBudget / 2 / kCluster;
  for (int round = 0; round < 4; ++round) {
    for (uint64_t i = 0; i < kHot; ++i) use(cache, 1, i);
  }
  REQUIRE(still_there(cache, 1, kHot) == kHot);
  for (const int pieces : {1, 16}) {  // whole clusters, then 4 KiB at a time
    CAPTURE(pieces);
    const uint64_t owner = 1 + static_cast<uint64_t>(pieces);
    for (uint64_t i = 0; i < 10 * kBudget / kCluster; ++i) use(cache, owner, i, pieces);
    CHECK(still_there(cache, 1, kHot) >= kHot * 9 / 10);
  }
}

TEST_CASE("what a scan leaves no time to be used often is remembered, and stays the next time") {
  BlockCache cache(kBudget);
  constexpr uint64_t kHot = kBudget / 4 / kCluster;
  uint64_t scanned = 0;
  for (int round = 0; round < 4; ++round) {
    for (uint64_t i = 0; i < kHot; ++i) {
      use(cache, 1, i);
      for (int step = 0; step < 4; ++step) use(cache, 2, scanned++, 16);
    }
  }
  CHECK(still_there(cache, 1, kHot) >= kHot * 9 / 10);
}

TEST_CASE("the cache follows when other blocks become the ones that are used often") {
  BlockCache cache(kBudget);
  constexpr uint64_t kHot = kBudget * 3 / 4 / kCluster;
  for (const uint64_t owner : {1u, 2u, 3u}) {
    uint64_t hits = 0;
    for (int round = 0; round < 20; ++round) {
      hits = 0;
      for (uint64_t i = 0; i < kHot; ++i) hits += use(cache, owner, i * 7919 % kHot) ? 1u : 0u;
    }
    CAPTURE(owner);
    CHECK(hits >= kHot * 9 / 10);
  }
}

TEST_CASE("several of the largest blocks fit side by side") {
  BlockCache cache(kBudget);
  for (uint64_t i = 0; i < 8; ++i) REQUIRE(cache.get({1, i << 21}, 2 << 20, filler(1)));
  for (uint64_t i = 0; i < 8; ++i) CHECK(cache.find({1, i << 21}));
}

TEST_CASE("a handle keeps its block after eviction") {
  BlockCache cache(kOneShard);
  constexpr uint64_t kMost = kOneShard * 3 / 4;
  const auto handle = *cache.get({1, 0}, kMost, filler(9));
  REQUIRE(cache.get({1, 1}, kMost, filler(1)));
  CHECK(!cache.find({1, 0}));
  CHECK(handle->size() == kMost);
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

TEST_CASE("threads that use, load, fail and evict at the same time see only right bytes") {
  BlockCache cache(4 << 20);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < 4; ++number) {
    threads.emplace_back([&cache, &wrong, number] {
      std::mt19937 random(number);
      for (int i = 0; i < 4000; ++i) {
        const uint64_t key = random() % 200;
        const auto value = static_cast<std::byte>(key);
        const bool fails = random() % 16 == 0;
        const auto block =
            cache.get({1, key}, size_t{4096} << key % 5, [&](MutableByteSpan out) -> Result<void> {
              if (fails) return fail(ErrorKind::kIo, "now and then");
              return fill(out, value);
            });
        if (!block) continue;
        if ((*block)->size() != 4096u << key % 5 || (*block)->front() != value ||
            (*block)->back() != value || cache.used() > 4 << 20) {
          ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("memory of a block that is gone is used for the next of its size, within a bound") {
  BlockMemory memory(10000);
  const std::byte* first = memory.allocate(4096)->data();
  CHECK(memory.kept() == 4096);
  CHECK(memory.allocate(4000)->data() != first);
  CHECK(memory.allocate(4096)->data() == first);
  {
    const auto one = memory.allocate(4096);
    const auto two = memory.allocate(4096);
    const auto three = memory.allocate(4096);
    CHECK(memory.kept() == 4000);
  }
  CHECK(memory.kept() == 2 * 4096);  // the oldest made room
  (void)memory.allocate(10001);
  CHECK(memory.kept() == 2 * 4096);
}

}  // namespace
}  // namespace underlay
