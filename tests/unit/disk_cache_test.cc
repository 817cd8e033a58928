#include "io/cache/disk_cache.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/stat.h>

#include <filesystem>
#include <thread>

#include "tests/support/limited_files.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_bytes.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;
using test::Bytes;
using test::LimitedFiles;
using test::pattern;

constexpr uint64_t kLimit = 64ull << 20;
constexpr uint64_t kGroupBytes = kCacheBlock * kGroupBlocks;
constexpr uint64_t kObjectSize = 40 * kGroupBytes;

// One process that uses the cache.
struct User {
  explicit User(const TempFolder& folder, uint64_t limit = kLimit)
      : User(folder.path("cache"), limit) {}
  explicit User(const std::string& path, uint64_t limit = kLimit) {
    auto opened = DiskCache::open(
        {.path = path, .limit = limit, .touch_interval = std::chrono::seconds(0)}, log);
    REQUIRE(opened);
    cache = *std::move(opened);
  }
  CacheObject object(const std::string& id = "image") const {
    return cache->object({.id = id, .size = kObjectSize});
  }
  void store(uint64_t block, const Bytes& bytes, const std::string& id = "image") const {
    cache->store(object(id), block, bytes);
  }
  // Empty when it is not there.
  Bytes read(uint64_t block, const std::string& id = "image") const {
    Bytes bytes(kCacheBlock);
    return cache->read(object(id), block, 0, bytes) ? bytes : Bytes();
  }

  Log log{"test", false};
  std::unique_ptr<DiskCache> cache;
};

Bytes block_of(uint64_t number) { return pattern(kCacheBlock, static_cast<uint32_t>(number)); }

std::vector<fs::path> group_files(const TempFolder& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder.path("cache"))) {
    if (parse_cache_file_name(entry.path().filename().string())) files.push_back(entry.path());
  }
  return files;
}

uint64_t bytes_on_disk(const TempFolder& folder) {
  uint64_t bytes = 0;
  for (const fs::path& file : group_files(folder)) {
    struct stat status;
    if (::stat(file.c_str(), &status) == 0) bytes += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  return bytes;
}

void overwrite(const fs::path& file, off_t offset, const Bytes& bytes) {
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), offset) ==
          static_cast<ssize_t>(bytes.size()));
}

TEST_CASE("cache files: names and headers say whose they are") {
  const ObjectFacts facts{.id = "https://host/image etag", .size = 12345};
  CHECK(read_group_header(make_group_header(facts, 7)) == facts);
  GroupHeader damaged = make_group_header(facts, 7);
  damaged[100] ^= std::byte{1};
  CHECK(!read_group_header(damaged));
  CHECK(!read_group_header(GroupHeader{}));
  CHECK(object_name(facts) != object_name({.id = facts.id, .size = 12346}));
  const CacheFileName name{.object = object_name(facts), .group = 0x1234};
  const auto parsed = parse_cache_file_name(name.to_string());
  REQUIRE(parsed);
  CHECK(parsed->object == name.object);
  CHECK(parsed->group == name.group);
  for (const char* other : {"usage", "0123", "0123456789abcdef0123456789abcdeX.0",
                            "0123456789abcdef0123456789abcdef.", "../x"}) {
    CHECK(!parse_cache_file_name(other));
  }
}

TEST_CASE("disk cache: what was stored is there, also for others and after a restart") {
  const TempFolder folder;
  {
    const User first(folder);
    const User second(folder);
    CHECK(first.read(3).empty());
    first.store(3, block_of(3));
    CHECK(first.read(3) == block_of(3));
    CHECK(second.read(3) == block_of(3));
    CHECK(second.read(4).empty());
    CHECK(second.read(3, "another image").empty());
    // A part of it, and what is in memory.
    Bytes part(100);
    REQUIRE(second.cache->read(second.object(), 3, 50, part));
    CHECK(std::equal(part.begin(), part.end(), block_of(3).begin() + 50));
    std::fill(part.begin(), part.end(), std::byte{0});
    const size_t got = second.cache->read_now(second.object(), 3, 50, part);
    if (got > 0) CHECK(part[0] == block_of(3)[50]);  // not every file system can say
  }
  CHECK(User(folder).read(3) == block_of(3));
}

TEST_CASE("disk cache: the last block may be shorter") {
  const TempFolder folder;
  const User user(folder);
  const CacheObject object = user.cache->object({.id = "x", .size = kCacheBlock + 10});
  CHECK(object.blocks() == 2);
  user.cache->store(object, 1, pattern(10, 1));
  Bytes bytes(10);
  REQUIRE(user.cache->read(object, 1, 0, bytes));
  CHECK(bytes == pattern(10, 1));
}

TEST_CASE("disk cache: what a crash leaves half written does not count") {
  const TempFolder folder;
  User(folder).store(3, block_of(3));
  const fs::path file = group_files(folder).at(0);
  const off_t data = static_cast<off_t>(kGroupData + 3 * kCacheBlock);
  const off_t digest = static_cast<off_t>(kGroupTable + 3 * kDigestBytes);
  SUBCASE("data without its digest") { overwrite(file, digest, Bytes(kDigestBytes)); }
  SUBCASE("a digest without its data, after a power failure") {
    overwrite(file, data, Bytes(kCacheBlock));
  }
  SUBCASE("half of the data") { overwrite(file, data + 32768, Bytes(32768)); }
  SUBCASE("half of the digest") { overwrite(file, digest, Bytes(8)); }
  SUBCASE("no header") { fs::resize_file(file, 0); }
  SUBCASE("half of a header") { fs::resize_file(file, 2048); }
  SUBCASE("a header of zeros") { overwrite(file, 0, Bytes(kGroupTable)); }
  SUBCASE("no data") { fs::resize_file(file, kGroupData); }
  const User user(folder);
  CHECK(user.read(3).empty());
  CHECK(!user.cache->has(user.object(), 3));
  // And it is mended by the next store.
  user.store(3, block_of(3));
  CHECK(user.read(3) == block_of(3));
  CHECK(User(folder).read(3) == block_of(3));
}

TEST_CASE("disk cache: a block that is damaged on disk is noticed by who reads it first") {
  const TempFolder folder;
  User(folder).store(3, block_of(3));
  overwrite(group_files(folder).at(0), kGroupData + 3 * kCacheBlock + 777, pattern(1, 99));
  const User user(folder);
  CHECK(user.read(3).empty());
  CHECK(user.cache->counts().damaged_blocks == 1);
  CHECK(!user.cache->has(user.object(), 3));
}

TEST_CASE("disk cache: a file that is another image's by chance is left alone") {
  const TempFolder folder;
  User(folder).store(0, block_of(1));
  const fs::path file = group_files(folder).at(0);
  const GroupHeader other = make_group_header({.id = "other", .size = kObjectSize}, 0);
  overwrite(file, 0, Bytes(other.begin(), other.end()));
  const User user(folder);
  CHECK(user.read(0).empty());
  user.store(0, block_of(1));
  CHECK(user.read(0).empty());
  CHECK(user.cache->counts().failures > 0);
}

TEST_CASE("disk cache: a full disk, at whatever byte, costs no more than the cache") {
  for (const rlim_t bytes : {rlim_t{0}, rlim_t{100}, rlim_t{4096}, rlim_t{5000}, rlim_t{8192},
                             rlim_t{8193}, rlim_t{8192 + 65535}}) {
    CAPTURE(bytes);
    const TempFolder folder;
    const User user(folder);
    {
      const LimitedFiles limited(bytes);
      user.store(0, block_of(0));
    }
    CHECK(user.read(0).empty());
    CHECK(user.cache->counts().failures > 0);
    const User next(folder);
    CHECK(next.read(0).empty());
    next.store(0, block_of(0));
    CHECK(next.read(0) == block_of(0));
  }
}

TEST_CASE("disk cache: the limit holds for all users together, and the last used stay") {
  const TempFolder folder;
  constexpr uint64_t kSmall = 32ull << 20;
  const User first(folder, kSmall);
  const User second(folder, kSmall);
  first.store(0, block_of(0));
  for (uint64_t block = kGroupBlocks; block < kObjectSize / kCacheBlock; ++block) {
    (block % 2 == 0 ? first : second).store(block, block_of(block));
    if (block % kGroupBlocks == 0) CHECK(first.read(0) == block_of(0));  // used again and again
    if (block % kGroupBlocks == 0) CHECK(bytes_on_disk(folder) <= kSmall + 2 * DiskCache::kReserve);
  }
  CHECK(bytes_on_disk(folder) > kSmall / 2);
  CHECK(first.read(0) == block_of(0));
  CHECK(first.read(kGroupBlocks).empty());
  const uint64_t last = kObjectSize / kCacheBlock - 1;
  CHECK(second.read(last) == block_of(last));
  const auto contents = first.cache->directory().contents();
  REQUIRE(contents);
  CHECK(contents->bytes == bytes_on_disk(folder));
  REQUIRE(contents->objects.size() == 1);
  CHECK(contents->objects[0].facts == ObjectFacts{.id = "image", .size = kObjectSize});
}

TEST_CASE("disk cache: what is remembered of first reads outlives the blocks") {
  const TempFolder folder;
  const User user(folder);
  CacheDirectory& directory = user.cache->directory();
  const std::string name = user.object("booted").name();
  REQUIRE(directory.write_boot_file(name, as_bytes("runs")));
  user.store(0, block_of(0));
  REQUIRE(user.cache->trim(16 << 10));
  CHECK(user.read(0).empty());
  CHECK(directory.read_boot_file(name));
  REQUIRE(user.cache->trim(0));
  CHECK_FALSE(directory.read_boot_file(name));
}

TEST_CASE("disk cache: whoever has an evicted file open reads on, until it closes it") {
  const TempFolder folder;
  const User first(folder);
  const User second(folder);
  first.store(0, block_of(0));
  CHECK(second.read(0) == block_of(0));
  CHECK(*first.cache->trim(0) == 0);
  CHECK(group_files(folder).empty());
  CHECK(first.read(0).empty());
  CHECK(second.read(0) == block_of(0));
  second.cache->close_evicted();
  CHECK(second.read(0).empty());
}

TEST_CASE("disk cache: files that somebody took away are not counted for ever") {
  const TempFolder folder;
  constexpr uint64_t kSmall = 16ull << 20;
  {
    const User user(folder, kSmall);
    for (uint64_t block = 0; block < 100; ++block) user.store(block, block_of(block));
  }
  for (const fs::path& file : group_files(folder)) fs::remove(file);
  folder.write("cache/usage", "neither a number nor anything");
  const User user(folder, kSmall);
  for (uint64_t block = 0; block < 100; ++block) user.store(block, block_of(block));
  for (uint64_t block = 0; block < 100; ++block) CHECK(user.read(block) == block_of(block));
}

TEST_CASE("disk cache: a folder that cannot be written to serves what it has") {
  const TempFolder folder;
  {
    const User user(folder);
    user.store(0, block_of(0));
    user.store(1, block_of(1));
  }
  const fs::path file = group_files(folder).at(0);
  overwrite(file, kGroupData + kCacheBlock, Bytes(100));
  fs::permissions(folder.path(), fs::perms(0755));
  fs::permissions(file, fs::perms(0444));
  fs::permissions(folder.path("cache/usage"), fs::perms(0444));
  fs::permissions(folder.path("cache"), fs::perms(0555));
  // Root may write everywhere; this thread then is somebody else to the file system.
  ::setfsuid(::geteuid() == 0 ? 65534 : ::geteuid());
  {
    const User user(folder);
    CHECK(!user.cache->directory().is_writable());
    CHECK(user.read(0) == block_of(0));
    for (int i = 0; i < 2; ++i) {
      CHECK(user.read(1).empty());
      CHECK(!user.cache->has(user.object(), 1));  // the digest stands there, and is not believed
    }
    user.store(2, block_of(2));
    CHECK(user.read(2).empty());
    CHECK(!user.cache->trim(0));
  }
  ::setfsuid(::geteuid());
  fs::permissions(folder.path("cache"), fs::perms(0755));
}

TEST_CASE("disk cache: a folder that cannot be is refused") {
  const TempFolder folder;
  Log log("test", false);
  const auto in_nothing =
      DiskCache::open({.path = folder.path("none/cache"), .limit = kLimit}, log);
  REQUIRE(!in_nothing);
  CHECK(in_nothing.error().to_string().find("none/cache") != std::string::npos);
  CHECK(!DiskCache::open({.path = folder.write("file", "x"), .limit = kLimit}, log));
}

TEST_CASE("disk cache: one process at a time fetches a block, and who dies gives it up") {
  const TempFolder folder;
  const User first(folder);
  const User second(folder);
  using namespace std::chrono_literals;
  auto held = std::make_unique<DiskCache::FetchLock>(first.cache->lock(first.object(), 0, 4, 10s));
  CHECK(held->is_held());
  CHECK(!second.cache->lock(second.object(), 3, 4, 10ms).is_held());
  CHECK(second.cache->lock(second.object(), 4, 4, 10ms).is_held());
  std::thread releasing([&] {
    std::this_thread::sleep_for(20ms);
    held.reset();
  });
  CHECK(second.cache->lock(second.object(), 3, 1, 30s).is_held());
  releasing.join();
}

}  // namespace
}  // namespace underlay
