#include "io/cache/prefetcher.h"

#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <latch>
#include <thread>

#include "io/cache/remote_cache.h"
#include "tests/support/counting_source.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_bytes.h"

namespace underlay {
namespace {

using test::CountingSource;
using test::pattern;

constexpr size_t kBlocks = 100;
constexpr uint64_t kFast = 1ull << 40;  // bytes a second

Log log{"test", false};

// A program that serves `remote`.
struct Program {
  Program(const TempFolder& folder, std::shared_ptr<const CountingSource> remote, PrefetchWhat what,
          uint64_t rate = kFast, uint64_t limit = 64ull << 20) {
    auto opened = RemoteCache::open({.disk = {.path = folder.path("cache"), .limit = limit},
                                     .prefetch = {.what = what, .rate = rate},
                                     .immutable = {}},
                                    log);
    REQUIRE(opened);
    cache = *std::move(opened);
    source = cache->wrap(std::move(remote));
    cache->start();
  }
  void read(uint64_t block, uint64_t count = 1) const {
    std::vector<std::byte> out(static_cast<size_t>(count * kCacheBlock));
    REQUIRE(source->read_at(block * kCacheBlock, out));
  }

  std::unique_ptr<RemoteCache> cache;
  std::shared_ptr<const Source> source;
};

std::shared_ptr<CountingSource> remote_image() {
  return std::make_shared<CountingSource>(pattern(kBlocks * kCacheBlock, 1), "id",
                                          "https://host/image");
}

template <class Condition>
bool comes_true(Condition condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

TEST_CASE("boot record: blocks in the order of their first reads, until it is over") {
  BootRecord record;
  record.note(5, 7);
  record.note(7, 8);
  record.note(2, 3);
  record.note(5, 9);
  const auto now = BootRecord::Clock::now();
  CHECK(!record.is_over(now + 2 * BootRecord::kTime));  // serving has not begun
  record.begin();
  CHECK(!record.is_over(now + 2 * BootRecord::kTime));  // nobody has read since
  record.note(50, 51);
  CHECK(!record.is_over(now));
  CHECK(record.is_over(BootRecord::Clock::now() + BootRecord::kTime));
  const std::vector<BlockRun> runs{{5, 3}, {2, 1}, {8, 1}, {50, 1}};
  CHECK(record.end() == runs);
  record.note(90, 91);
  CHECK(record.end() == runs);
}

TEST_CASE("boot record: what is read when nobody is served yet, alone, is nothing") {
  BootRecord record;
  record.note(5, 7);
  CHECK(record.end().empty());
  BootRecord begun;
  begun.begin();
  begun.note(~0ull - 3, ~0ull);
  CHECK(begun.end() == std::vector<BlockRun>{{~0ull - 3, 3}});
}

TEST_CASE("boot record: a file that is damaged, or another image's, says nothing") {
  const std::vector<BlockRun> runs{{5, 3}, {kBlocks - 1, 1}};
  std::vector<std::byte> file = boot_file(runs);
  CHECK(read_boot_file(file, kBlocks) == runs);
  CHECK(read_boot_file(file, kBlocks - 1).empty());
  CHECK(read_boot_file({}, kBlocks).empty());
  CHECK(read_boot_file(ByteSpan(file).first(file.size() - 16), kBlocks).empty());
  file.back() ^= std::byte{1};
  CHECK(read_boot_file(file, kBlocks).empty());
  CHECK(read_boot_file(boot_file({{5, ~0ull}}), kBlocks).empty());
}

TEST_CASE("prefetch: all of an image becomes local, though nobody reads it") {
  const TempFolder folder;
  const auto remote = remote_image();
  const Program program(folder, remote, PrefetchWhat::kAll);
  CHECK(comes_true([&] { return remote->bytes() == remote->size(); }));
  remote->fails = true;
  program.read(0, kBlocks);
  CHECK(remote->most_reads_of_a_block() == 1);
}

TEST_CASE("prefetch: several requests are under way at the same time") {
  const TempFolder folder;
  const auto remote = remote_image();
  // Nobody passes before so many are there; an image of 100 blocks takes 7 requests.
  constexpr unsigned kTogether = 4;
  std::latch together(kTogether);
  std::atomic<unsigned> arrived = 0;
  remote->before_read = [&] {
    if (arrived++ < kTogether) together.arrive_and_wait();
  };
  const Program program(folder, remote, PrefetchWhat::kAll);
  CHECK(comes_true([&] { return remote->bytes() == remote->size(); }));
  CHECK(remote->most_reads_of_a_block() == 1);
}

// Prefetches all of several images.
std::unique_ptr<RemoteCache> cache_of(const TempFolder& folder, std::chrono::milliseconds pause) {
  auto opened =
      RemoteCache::open({.disk = {.path = folder.path("cache"), .limit = 64ull << 20},
                         .prefetch = {.what = PrefetchWhat::kAll, .rate = kFast, .pause = pause},
                         .immutable = {}},
                        log);
  REQUIRE(opened);
  return *std::move(opened);
}

TEST_CASE("prefetch: an image that fails leaves the others alone, and has its turn again") {
  const TempFolder folder;
  const auto bad = remote_image();
  const auto good = std::make_shared<CountingSource>(pattern(kBlocks * kCacheBlock, 2), "good");
  bad->fails = true;
  {
    const auto cache = cache_of(folder, std::chrono::hours(1));
    const std::vector<std::shared_ptr<const Source>> sources{cache->wrap(bad), cache->wrap(good)};
    cache->start();
    CHECK(comes_true([&] { return good->bytes() == good->size(); }));
    CHECK(bad->requests() <= Prefetcher::kParallel);
  }
  const auto cache = cache_of(folder, std::chrono::milliseconds(20));
  const auto source = cache->wrap(bad);
  const uint64_t before = bad->requests();
  cache->start();
  CHECK(comes_true([&] { return bad->requests() > before; }));
  bad->fails = false;
  CHECK(comes_true([&] { return bad->bytes() == bad->size(); }));
  CHECK(bad->most_reads_of_a_block() == 1);
}

TEST_CASE("prefetch: an image that changed is fetched no more") {
  const TempFolder folder;
  const auto remote = remote_image();
  remote->fails = true;
  remote->changed = true;
  const auto cache = cache_of(folder, std::chrono::milliseconds(1));
  const auto source = cache->wrap(remote);
  cache->start();
  CHECK(comes_true([&] { return remote->requests() > 0; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(remote->requests() <= Prefetcher::kParallel);
}

TEST_CASE("remote cache: its end does not wait for a server that does not answer") {
  const TempFolder folder;
  const auto remote = remote_image();
  std::latch answers(1);
  remote->before_read = [&] { answers.wait(); };
  const auto cache = cache_of(folder, std::chrono::hours(1));
  const auto source = cache->wrap(remote);
  cache->start();
  CHECK(comes_true([&] { return remote->requests() > 0; }));
  CHECK_FALSE(cache->end(std::chrono::milliseconds(20)));
  const uint64_t requests = remote->requests();
  answers.count_down();
  CHECK(cache->end(std::chrono::seconds(60)));
  CHECK(remote->requests() == requests);
}

TEST_CASE("prefetch: no faster than it is allowed to be, and reads do not wait for it") {
  const TempFolder folder;
  const auto remote = remote_image();
  const auto begun = std::chrono::steady_clock::now();
  const Program program(folder, remote, PrefetchWhat::kAll, 16 << 20);
  program.read(kBlocks - 1);
  CHECK(comes_true([&] { return remote->bytes() > 3 << 20; }));
  // The first pieces: 2 MiB and more at 16 MiB a second before the last of them is asked for.
  CHECK(std::chrono::steady_clock::now() - begun >= std::chrono::milliseconds(125));
}

TEST_CASE("prefetch: an image that is larger than the cache is not fetched as a whole") {
  const TempFolder folder;
  const auto remote = remote_image();
  const Program program(folder, remote, PrefetchWhat::kAll, kFast, 4 << 20);
  program.read(3);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(remote->bytes() == kCacheBlock);
}

TEST_CASE("prefetch: what was read first is fetched when the image is served again") {
  const TempFolder folder;
  const auto remote = remote_image();
  {
    const Program program(folder, remote, PrefetchWhat::kBoot);
    program.read(70, 2);
    program.read(7);
  }
  CHECK(remote->bytes() == 3 * kCacheBlock);
  for (const auto& entry : std::filesystem::directory_iterator(folder.path("cache"))) {
    if (entry.path().extension() != ".boot") std::filesystem::remove(entry.path());
  }
  const Program again(folder, remote, PrefetchWhat::kBoot);
  CHECK(comes_true([&] { return remote->bytes() == 6 * kCacheBlock; }));
  remote->fails = true;
  again.read(70, 2);
  again.read(7);
}

TEST_CASE("prefetch: opening an image alone changes nothing of what is remembered of it") {
  const TempFolder folder;
  const auto remote = remote_image();
  const auto serve = [&](uint64_t before, std::optional<uint64_t> after) {
    auto opened = RemoteCache::open({.disk = {.path = folder.path("cache"), .limit = 64ull << 20},
                                     .prefetch = {.what = PrefetchWhat::kBoot},
                                     .immutable = {}},
                                    log);
    REQUIRE(opened);
    const auto source = (*opened)->wrap(remote);
    std::vector<std::byte> out(1);
    REQUIRE(source->read_at(before * kCacheBlock, out));
    (*opened)->start();
    if (after) REQUIRE(source->read_at(*after * kCacheBlock, out));
  };
  const auto remembered = [&] {
    const auto name = object_name({.id = "id", .size = remote->size()}) + ".boot";
    std::ifstream file(folder.path("cache/" + name), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return read_boot_file(as_bytes(text), kBlocks);
  };
  serve(3, 70);
  CHECK(remembered() == std::vector<BlockRun>{{3, 1}, {70, 1}});
  serve(5, std::nullopt);
  CHECK(remembered() == std::vector<BlockRun>{{3, 1}, {70, 1}});
}

TEST_CASE("remote cache: what nobody vouches for is not kept") {
  const TempFolder folder;
  auto opened = RemoteCache::open({.disk = {.path = folder.path("cache"), .limit = 64ull << 20},
                                   .prefetch = {},
                                   .immutable = {"nbd://host/*"}},
                                  log);
  REQUIRE(opened);
  const auto is_kept = [&](std::optional<std::string> id, const char* name,
                           std::optional<std::string> lasting = std::nullopt) {
    auto source = std::make_shared<CountingSource>(pattern(10, 1), std::move(id), name);
    source->lasting = std::move(lasting);
    return (*opened)->wrap(source) != source;
  };
  CHECK(is_kept("id", "nbd://other/x"));
  CHECK_FALSE(is_kept(std::nullopt, "nbd://other/x"));
  CHECK(is_kept(std::nullopt, "nbd://host/x"));
  CHECK_FALSE(is_kept(std::nullopt, "nbd://host/x", ""));
  CHECK_FALSE(is_kept(std::string(kMaxContentId + 1, 'a'), "nbd://host/x"));
}

}  // namespace
}  // namespace underlay
