#include "formats/extent_cache.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace underlay {
namespace {

using Kind = Extent::Kind;

constexpr uint64_t kUnit = 64 << 10;

// A run whose fields all follow from `number`.
ExtentCache::Run run_of(uint64_t number) {
  ExtentCache::Run run;
  run.start = number * kUnit;
  run.extent.kind = Kind::kCompressed;
  run.extent.reserved = number % 2 == 1;
  run.extent.depth = static_cast<uint16_t>(number % 7);
  run.extent.length = kUnit - number % 512;
  run.extent.source_offset = number * 1000;
  run.extent.cluster_start = number * kUnit;
  run.extent.cluster_length = static_cast<uint32_t>(number % 100000);
  run.extent.stored_length = number * 3 % 1000;
  return run;
}

bool same(const ExtentCache::Run& a, const ExtentCache::Run& b) {
  return a.start == b.start && a.extent.kind == b.extent.kind &&
         a.extent.reserved == b.extent.reserved && a.extent.depth == b.extent.depth &&
         a.extent.length == b.extent.length && a.extent.source == b.extent.source &&
         a.extent.source_offset == b.extent.source_offset &&
         a.extent.cluster_start == b.extent.cluster_start &&
         a.extent.cluster_length == b.extent.cluster_length &&
         a.extent.stored_length == b.extent.stored_length;
}

}  // namespace

TEST_CASE("an extent cache gives back what was put, with every field") {
  ExtentCache cache(1 << 20);
  for (uint64_t number = 0; number < 50; ++number) cache.put(1, number, run_of(number));
  for (uint64_t number = 0; number < 50; ++number) {
    const auto run = cache.find(1, number, number * kUnit + 5);
    REQUIRE(run);
    CHECK(same(*run, run_of(number)));
  }
}

TEST_CASE("an extent cache knows nothing of other owners, units and offsets") {
  ExtentCache cache(1 << 20);
  cache.put(1, 3, run_of(3));
  CHECK_FALSE(cache.find(2, 3, 3 * kUnit));
  CHECK_FALSE(cache.find(1, 3, 3 * kUnit - 1));
  CHECK_FALSE(cache.find(1, 3, 3 * kUnit + run_of(3).extent.length));
  CHECK(cache.find(1, 3, 3 * kUnit + run_of(3).extent.length - 1));
}

TEST_CASE("a full extent cache forgets, and never mixes runs up") {
  for (const uint64_t budget : {uint64_t{0}, uint64_t{1000}, uint64_t{4096}}) {
    ExtentCache cache(budget);
    size_t found = 0;
    for (uint64_t number = 0; number < 2000; ++number) {
      cache.put(1 + number % 3, number, run_of(number));
      CHECK(cache.find(1 + number % 3, number, number * kUnit));
      for (uint64_t old = number < 100 ? 0 : number - 100; old < number; ++old) {
        const auto run = cache.find(1 + old % 3, old, old * kUnit);
        if (!run) continue;
        ++found;
        CHECK(same(*run, run_of(old)));
      }
    }
    CHECK(found <= 2000 * std::max<size_t>(budget / 64, 2));
  }
}

TEST_CASE("a run that its slot cannot state is not remembered") {
  ExtentCache cache(4096);
  ExtentCache::Run run = run_of(0);
  run.extent.length = uint64_t{1} << 32;
  cache.put(1, 0, run);
  CHECK_FALSE(cache.find(1, 0, 0));
  run = run_of(0);
  run.extent.stored_length = uint64_t{1} << 32;
  cache.put(1, 0, run);
  CHECK_FALSE(cache.find(1, 0, 0));
}

TEST_CASE("threads that write the same slots never make a reader see half of a run") {
  ExtentCache cache(256);
  // So that there is something to find whichever thread comes first.
  for (uint64_t number = 0; number < 32; ++number) cache.put(1, number, run_of(number));
  std::atomic<bool> wrong = false;
  std::atomic<uint64_t> found = 0;
  std::vector<std::thread> threads;
  for (uint64_t writer = 0; writer < 2; ++writer) {
    threads.emplace_back([&, writer] {
      for (uint64_t i = 0; i < 100'000; ++i) {
        const uint64_t number = i % 16 * 2 + writer;
        cache.put(1, number, run_of(number));
      }
    });
  }
  for (int reader = 0; reader < 2; ++reader) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < 100'000; ++i) {
        const uint64_t number = i % 32;
        const auto run = cache.find(1, number, number * kUnit);
        if (!run) continue;
        ++found;
        if (!same(*run, run_of(number))) wrong = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(found > 0);
  CHECK_FALSE(wrong);
}

}  // namespace underlay
