#include "io/cache/cached_source.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <latch>
#include <random>
#include <thread>

#include "io/cache/background_fetches.h"
#include "tests/support/counting_source.h"
#include "tests/support/limited_files.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_bytes.h"

namespace underlay {
namespace {

using test::Bytes;
using test::CountingSource;
using test::pattern;

constexpr size_t kSize = 20 * kCacheBlock * 16 + 1234;

class NobodyAhead final : public AheadFetcher {
 public:
  void fetch_ahead(const std::weak_ptr<const CachedSource>&, uint64_t first,
                   uint64_t count) override {
    const std::lock_guard lock(mutex_);
    asked.emplace_back(first, count);
  }
  std::vector<std::pair<uint64_t, uint64_t>> asked;

 private:
  std::mutex mutex_;
};

// One process with the remote image `remote`.
struct Process {
  Process(const TempFolder& folder, std::shared_ptr<const CountingSource> remote,
          uint64_t limit = 256ull << 20) {
    auto opened = DiskCache::open({.path = folder.path("cache"), .limit = limit}, log);
    REQUIRE(opened);
    cache = *std::move(opened);
    source = open(std::move(remote));
  }
  std::shared_ptr<const CachedSource> open(std::shared_ptr<const CountingSource> remote) {
    const ObjectFacts facts{.id = *remote->content_id(), .size = remote->size()};
    return std::make_shared<const CachedSource>(
        std::move(remote), cache->object(facts),
        CachedSource::Shared{.cache = *cache, .flights = flights, .ahead = ahead});
  }

  Log log{"test", false};
  std::unique_ptr<DiskCache> cache;
  Flights flights;
  NobodyAhead ahead;
  std::shared_ptr<const CachedSource> source;
};

// As a server reads: what is in memory first.
bool reads_right(const Source& source, const Bytes& content, uint64_t offset, size_t length) {
  Bytes out(length);
  const size_t got = source.read_cached(offset, out);
  if (!source.read_at(offset + got, MutableByteSpan(out).subspan(got))) return false;
  return std::equal(out.begin(), out.end(), content.begin() + static_cast<ptrdiff_t>(offset));
}

// From several threads.
bool random_reads_are_right(const std::vector<const Source*>& sources, const Bytes& content) {
  std::atomic<bool> right = true;
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (size_t i = 0; i < 150; ++i) {
        const size_t length = 1 + random() % 300'000;
        const uint64_t offset = random() % (content.size() - length);
        if (!reads_right(*sources[i % sources.size()], content, offset, length)) right = false;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return right;
}

TEST_CASE("cached source: every byte is right, and no block is fetched twice, restarts included") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 1);
  const auto remote = std::make_shared<CountingSource>(content);
  {
    Process process(folder, remote);
    CHECK(process.source->size() == kSize);
    CHECK(reads_right(*process.source, content, kSize - 1, 1));
    CHECK(reads_right(*process.source, content, kCacheBlock - 1, 2));
    CHECK(random_reads_are_right({process.source.get()}, content));
    CHECK(remote->most_reads_of_a_block() == 1);
  }
  Process again(folder, remote);
  CHECK(random_reads_are_right({again.source.get()}, content));
  CHECK(reads_right(*again.source, content, 0, kSize));
  CHECK(remote->most_reads_of_a_block() == 1);
  CHECK(remote->bytes() == kSize);
  // Not even the remote's last word is needed any more.
  remote->fails = true;
  CHECK(reads_right(*again.source, content, 0, kSize));
  CHECK(again.cache->counts().hits > 0);
}

TEST_CASE("cached source: threads, exports and processes that want a block at once fetch it once") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 2);
  const auto remote = std::make_shared<CountingSource>(content);
  remote->before_read = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  Process first(folder, remote);
  Process second(folder, remote);
  const auto other_export = first.open(remote);
  CHECK(random_reads_are_right({first.source.get(), other_export.get(), second.source.get()},
                               content));
  CHECK(remote->most_reads_of_a_block() == 1);
}

TEST_CASE("cached source: other content has other blocks") {
  const TempFolder folder;
  const Bytes content = pattern(100'000, 3);
  const Bytes newer = pattern(100'000, 4);
  Process process(folder, std::make_shared<CountingSource>(content, "version 1"));
  CHECK(reads_right(*process.source, content, 0, content.size()));
  const auto second = process.open(std::make_shared<CountingSource>(newer, "version 2"));
  CHECK(reads_right(*second, newer, 0, newer.size()));
  CHECK(reads_right(*process.source, content, 0, content.size()));
}

TEST_CASE("cached source: a failure of the remote is an error, for all who wait, and passes") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 5);
  const auto remote = std::make_shared<CountingSource>(content);
  Process process(folder, remote);
  remote->fails = true;
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Bytes out(1000);
      if (!process.source->read_at(0, out)) ++failed;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failed == 4);
  remote->fails = false;
  CHECK(reads_right(*process.source, content, 0, 1000));
  Bytes out(10);
  const auto beyond = process.source->read_at(kSize - 5, out);
  REQUIRE(!beyond);
  CHECK(beyond.error().kind == ErrorKind::kTruncated);
}

TEST_CASE(
    "cached source: a failure is met once by all who wait for it, not by one after the other") {
  const TempFolder folder;
  const auto remote = std::make_shared<CountingSource>(pattern(kSize, 5));
  constexpr int kReaders = 6;
  std::latch together(kReaders);
  remote->before_read = [] { std::this_thread::sleep_for(std::chrono::milliseconds(300)); };
  Process process(folder, remote);
  remote->fails = true;
  std::vector<std::thread> threads;
  std::atomic<int> failed = 0;
  for (int i = 0; i < kReaders; ++i) {
    threads.emplace_back([&] {
      Bytes out(1000);
      together.arrive_and_wait();
      if (!process.source->read_at(0, out)) ++failed;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failed == kReaders);
  CHECK(remote->requests() < kReaders);  // one, but for readers that came late
}

TEST_CASE("cached source: what fails at one address may go well at another") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 5);
  const auto expired = std::make_shared<CountingSource>(content);
  const auto renewed = std::make_shared<CountingSource>(content);
  Process process(folder, expired);
  const auto other = process.open(renewed);
  expired->fails = true;
  std::latch flies(1);
  std::thread reader;
  expired->before_read = [&] {
    if (reader.joinable()) return;
    reader = std::thread([&] {
      flies.count_down();
      CHECK(reads_right(*other, content, 0, 1000));
    });
    flies.wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  };
  Bytes out(1000);
  CHECK_FALSE(process.source->read_at(0, out));
  reader.join();
}

// Did a second reader have its bytes before the first one's store had failed, for want of room?
bool has_bytes_before_they_are_kept() {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 5);
  const auto remote = std::make_shared<CountingSource>(content);
  Process process(folder, remote);
  // Nobody can take room: the store waits for that.
  const UniqueFd usage(::open(folder.path("cache/usage").c_str(), O_RDWR | O_CLOEXEC));
  const FileLock held = FileLock::take(usage.get(), 0, 1, std::chrono::seconds(10));
  REQUIRE(held.held());
  std::latch flies(1);
  remote->before_read = [&] {
    if (remote->requests() == 1) flies.count_down();
  };
  std::thread first([&] { CHECK(reads_right(*process.source, content, 0, 1000)); });
  flies.wait();
  CHECK(reads_right(*process.source, content, 0, 1000));
  const bool before = process.cache->counts().failures == 0;
  first.join();
  return before;
}

TEST_CASE("cached source: who waits for bytes does not wait until they are kept") {
  bool seen = false;
  for (int i = 0; i < 5 && !seen; ++i) seen = has_bytes_before_they_are_kept();  // or it came late
  CHECK(seen);
}

TEST_CASE("cached source: a full disk, and a cache that is too small, cost requests alone") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 6);
  const auto remote = std::make_shared<CountingSource>(content);
  {
    const test::LimitedFiles limited(1 << 20);
    Process process(folder, remote);
    CHECK(random_reads_are_right({process.source.get()}, content));
    CHECK(process.cache->counts().failures > 0);
  }
  Process small(folder, remote, 4 << 20);
  Process other(folder, remote, 4 << 20);
  CHECK(random_reads_are_right({small.source.get(), other.source.get()}, content));
  CHECK(small.cache->counts().hits > 0);
}

TEST_CASE("cached source: damage while it is served is fetched again by whoever has not read it") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 7);
  const auto remote = std::make_shared<CountingSource>(content);
  Process first(folder, remote);
  CHECK(reads_right(*first.source, content, 0, kSize));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path("cache"))) {
    if (!parse_cache_file_name(entry.path().filename().string())) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(kGroupData + 5 * kCacheBlock + 17));
    file.put('x').put('y').put('z');
  }
  Process second(folder, remote);
  CHECK(reads_right(*second.source, content, 0, kSize));
  CHECK(second.cache->counts().damaged_blocks > 0);
  CHECK(remote->most_reads_of_a_block() == 2);
  CHECK(reads_right(*Process(folder, remote).source, content, 0, kSize));
  CHECK(remote->most_reads_of_a_block() == 2);
}

TEST_CASE("sequential reads: what comes next is asked for once, and further each time") {
  SequentialReads reads;
  uint64_t ahead = 0;
  unsigned asked = 0;
  for (uint64_t at = 0; at < 64 << 20; at += 64 << 10) {
    const auto range = reads.note(at, 64 << 10);
    if (!range) continue;
    ++asked;
    CHECK(range->begin >= at + (64 << 10));
    if (ahead != 0) CHECK(range->begin == ahead);
    CHECK(range->end - at <= SequentialReads::kMaxWindow + (64 << 10));
    ahead = range->end;
  }
  CHECK(ahead > 64 << 20);
  CHECK(asked < 60);
}

TEST_CASE("sequential reads: several runs at once, a little out of order; not random ones") {
  SequentialReads reads;
  unsigned asked = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    for (uint64_t run = 0; run < 4; ++run) {
      const uint64_t at = (i ^ 1) * 16384 + (run << 32);
      if (reads.note(at, 16384)) ++asked;
    }
  }
  CHECK(asked >= 4);
  SequentialReads other;
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) CHECK(!other.note(random() % (1ull << 40), 4096));
}

TEST_CASE("cached source: reads that are sequential are fetched ahead, in the background") {
  const TempFolder folder;
  const Bytes content = pattern(kSize, 8);
  const auto remote = std::make_shared<CountingSource>(content);
  Process process(folder, remote);
  BackgroundFetches background(*process.cache);
  const auto source = std::make_shared<const CachedSource>(
      remote, process.cache->object({.id = "id", .size = kSize}),
      CachedSource::Shared{
          .cache = *process.cache, .flights = process.flights, .ahead = background});
  for (uint64_t at = 0; at < 1 << 20; at += 4096) CHECK(reads_right(*source, content, at, 4096));
  CHECK(remote->bytes() == 1 << 20);  // not started: hints are dropped
  background.start();
  for (uint64_t at = 1 << 20; at < 2 << 20; at += 4096) {
    CHECK(reads_right(*source, content, at, 4096));
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (remote->bytes() < 4 << 20 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(remote->bytes() >= 4 << 20);
  CHECK(remote->most_reads_of_a_block() == 1);
}

}  // namespace
}  // namespace underlay
