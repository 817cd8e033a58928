#include "io/cache/disk_cache.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstddef>
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
    second.cache->keep();
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

// The page cache gives a page up when its write has failed; what is read then lies on disk.
TEST_CASE("disk cache: who has stored a block, and read it, notices that the disk has lost it") {
  const TempFolder folder;
  const User user(folder);
  user.store(3, block_of(3));
  SUBCASE("not read yet") {}
  SUBCASE("read") { CHECK(user.read(3) == block_of(3)); }
  Bytes part(100);
  CHECK(user.cache->read_now(user.object(), 3, 0, part) == 0);  // not before it is on disk
  overwrite(group_files(folder).at(0), kGroupData + 3 * kCacheBlock, Bytes(kCacheBlock));
  CHECK(!user.cache->read(user.object(), 3, 4096, part));
  CHECK(user.cache->counts().damaged_blocks == 1);
  CHECK(!user.cache->has(user.object(), 3));
  user.cache->keep();
  CHECK(user.cache->read_now(user.object(), 3, 0, part) == 0);
}

// Of the calling thread, from now on.
void let_fdatasync_fail() {
  std::array<sock_filter, 4> rules{
      {{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
       {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_fdatasync},
       {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EIO},
       {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}}};
  const sock_fprog program{.len = rules.size(), .filter = rules.data()};
  REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

TEST_CASE("disk cache: blocks that the disk does not take are forgotten, by all") {
  const TempFolder folder;
  const User user(folder);
  user.store(3, block_of(3));
  user.store(4, block_of(4));
  CHECK(user.read(3) == block_of(3));
  std::thread([&] {
    let_fdatasync_fail();
    user.cache->keep();
  }).join();
  CHECK(user.cache->counts().failures == 1);
  Bytes part(100);
  CHECK(user.cache->read_now(user.object(), 3, 0, part) == 0);
  CHECK(user.read(3).empty());
  CHECK(user.read(4).empty());
  CHECK(User(folder).read(3).empty());
}

// XXH3 is no cryptographic digest: such a pair is made in no time.
TEST_CASE("disk cache: two objects whose names are the same have blocks of their own") {
  std::array<std::string, 2> ids;
  for (const char* digits :
       {"2e2e2e2e2e2ecb79e64eccc0e5782e2e2e2e2e2e2e2eb8084674f743248e3131"
        "313131313131ded46de9839097db3232323232323232",
        "2e2e2e2e2e2ecb79e64eccc0e5782e2e2e2e2e2e2e2eb8084674f743248e3131"
        "313131313133ded46de9839097db3232323232323250"}) {
    std::string& id = ids[ids[0].empty() ? 0 : 1];
    for (const std::string text = digits; id.size() < text.size() / 2;) {
      id += static_cast<char>(std::stoi(text.substr(2 * id.size(), 2), nullptr, 16));
    }
  }
  const TempFolder folder;
  const User user(folder);
  REQUIRE(ids[0] != ids[1]);
  REQUIRE(user.object(ids[0]).name() == user.object(ids[1]).name());
  user.store(3, block_of(3), ids[0]);
  CHECK(user.read(3, ids[0]) == block_of(3));
  CHECK(user.read(3, ids[1]).empty());
  user.store(4, block_of(4), ids[1]);
  CHECK(user.read(4, ids[0]).empty());
  CHECK(user.read(4, ids[1]).empty());  // there is one file, which is the other's
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

std::string refusal(const std::string& path, std::optional<CacheOwner> owner = std::nullopt) {
  Log log("test", false);
  const auto opened = DiskCache::open({.path = path, .limit = kLimit, .owner = owner}, log);
  return opened ? "" : opened.error().to_string();
}

TEST_CASE("disk cache: a folder that others may write to is refused") {
  const TempFolder folder;
  const std::string path = folder.path("cache");
  fs::create_directory(path);
  for (const unsigned mode : {0775u, 0757u, 01777u}) {
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    CHECK(refusal(path).find("chmod go-w") != std::string::npos);
  }
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
  CHECK(refusal(path) == "");
  if (::geteuid() != 0) return;
  REQUIRE(::chown(path.c_str(), 12345, 12345) == 0);
  CHECK(refusal(path).find("user 12345") != std::string::npos);
  CHECK(refusal(path, CacheOwner{.user = 1, .group = 1}) != "");
  CHECK(refusal(path, CacheOwner{.user = 12345, .group = 12345}) == "");
}

// What lies there under the name of one of the cache's files.
void plant(const std::string& what, const std::string& name, const TempFolder& folder) {
  const std::string target = folder.write("target", "untouched");
  if (what == "a FIFO") REQUIRE(::mkfifo(name.c_str(), 0600) == 0);
  if (what == "a symbolic link") fs::create_symlink(target, name);
  if (what == "a hard link") fs::create_hard_link(target, name);
  if (what == "a folder") fs::create_directory(name);
}

TEST_CASE("disk cache: what is no file of its own is neither waited for nor used") {
  for (const char* what : {"a FIFO", "a symbolic link", "a hard link", "a folder"}) {
    CAPTURE(what);
    const TempFolder folder;
    const User user(folder);
    const std::string name = folder.path("cache/") + user.object().name();
    plant(what, name + ".0", folder);
    plant(what, name + ".boot", folder);
    user.store(0, block_of(0));
    CHECK(user.read(0).empty());
    CHECK(user.cache->directory().contents());
    CHECK_FALSE(user.cache->directory().read_boot_file(user.object().name()));
    CHECK(fs::file_size(folder.path("target")) == 9);
    user.store(kGroupBlocks, block_of(1));
    CHECK(user.read(kGroupBlocks) == block_of(1));
    CHECK(user.cache->trim(0));
    const std::string other = folder.path("other");
    fs::create_directory(other);
    plant(what, other + "/usage", folder);
    CHECK(refusal(other).find("other/usage") != std::string::npos);
  }
}

TEST_CASE("disk cache: files go to the folder's owner when they are made, and at no other time") {
  if (::geteuid() != 0) return;
  const TempFolder folder;
  const CacheOwner owner{.user = 12345, .group = 12345};
  Log log("test", false);
  REQUIRE(DiskCache::open({.path = folder.path("cache"), .limit = kLimit, .owner = owner}, log));
  const auto user_of = [&](const std::string& name) {
    struct stat status {};
    REQUIRE(::stat(name.c_str(), &status) == 0);
    return status.st_uid;
  };
  const std::string usage = folder.path("cache/usage");
  CHECK(user_of(usage) == owner.user);
  REQUIRE(::chown(usage.c_str(), 0, 0) == 0);
  REQUIRE(DiskCache::open({.path = folder.path("cache"), .limit = kLimit, .owner = owner}, log));
  CHECK(user_of(usage) == 0);
}

TEST_CASE("disk cache: a lock that somebody holds for ever keeps nobody from starting") {
  const TempFolder folder;
  const User first(folder);
  first.store(0, block_of(0));
  const UniqueFd usage(::open(folder.path("cache/usage").c_str(), O_RDWR | O_CLOEXEC));
  const FileLock held = FileLock::take(usage.get(), 0, 1, std::chrono::seconds(10));
  REQUIRE(held.held());
  const User second(folder);
  CHECK(second.read(0) == block_of(0));
}

TEST_CASE("disk cache: those who wait for room do not wait one after the other") {
  const TempFolder folder;
  const User user(folder);
  const UniqueFd usage(::open(folder.path("cache/usage").c_str(), O_RDWR | O_CLOEXEC));
  const FileLock held = FileLock::take(usage.get(), 0, 1, std::chrono::seconds(10));
  REQUIRE(held.held());
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; ++i) threads.emplace_back([&, i] { user.store(i, block_of(i)); });
  for (std::thread& thread : threads) thread.join();
  CHECK(user.cache->counts().failures == 1);
  CHECK(user.read(0).empty());
}

TEST_CASE("disk cache: many files go in several turns") {
  const TempFolder folder;
  const User user(folder);
  constexpr size_t kFiles = CacheDirectory::kEvictedAtOnce * 2 + 100;
  for (size_t i = 0; i < kFiles; ++i) {
    folder.write("cache/" + fmt::format("{:032x}.0", i), "x");
  }
  CHECK(*user.cache->trim(0) == 0);
  CHECK(group_files(folder).empty());
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
