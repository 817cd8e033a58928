#include "io/cache/cache_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <memory>
#include <unordered_map>

#include "io/bytes.h"
#include "io/cache/cache_file.h"

namespace underlay {
namespace {

constexpr const char* kUsageFile = "usage";
constexpr uint64_t kBlockUnit = 512;  // of stat's st_blocks

// What is remembered of first reads is small, and of use once the blocks have gone.
constexpr std::chrono::nanoseconds kBootStays = std::chrono::hours(30 * 24);

// Others hold the lock while they count and evict.
constexpr std::chrono::milliseconds kUsageTime{5'000};
constexpr std::chrono::milliseconds kRoomTime{1'000};

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

Failure in_folder(Failure failure, const std::string& path) {
  return in_file(std::move(failure), path);
}

bool is_forbidden(int error) { return error == EROFS || error == EACCES || error == EPERM; }

Result<void> check_is_trusted(int folder, const std::optional<CacheOwner>& owner) {
  struct stat status;
  if (::fstat(folder, &status) != 0) return fail_errno(errno, "cannot look at the cache's folder");
  const uid_t user = status.st_uid;
  if (user != 0 && user != ::geteuid() && !(owner && user == owner->user)) {
    return fail(ErrorKind::kDenied,
                "the cache's folder belongs to the user {}, who could change what images contain: "
                "chown it to root, or to the user that the server runs as",
                user);
  }
  const mode_t mode = status.st_mode & 07777;
  if ((mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(ErrorKind::kDenied,
                "the cache's folder has the mode {:04o}: others than its owner could change what "
                "images contain: chmod go-w",
                mode);
  }
  return {};
}

}  // namespace

CacheDirectory::CacheDirectory(UniqueFd fd, std::string path, uint64_t limit)
    : fd_(std::move(fd)), path_(std::move(path)), limit_(limit) {}

Result<std::unique_ptr<CacheDirectory>> CacheDirectory::open(const std::string& path,
                                                             uint64_t limit,
                                                             std::optional<CacheOwner> owner) {
  const bool is_new = ::mkdir(path.c_str(), 0700) == 0;
  if (!is_new && errno != EEXIST) {
    const int error = errno;
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) {
      return in_folder(fail_errno(error, "cannot make the cache's folder"), path);
    }
  }
  if (is_new && owner && ::lchown(path.c_str(), owner->user, owner->group) != 0) {
    return in_folder(fail_errno(errno, "cannot give the cache's folder to its owner"), path);
  }
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return in_folder(fail_errno(errno, "cannot open the cache's folder"), path);
  if (auto trusted = check_is_trusted(fd.get(), owner); !trusted) {
    return in_folder(Failure(std::move(trusted).error()), path);
  }
  std::unique_ptr<CacheDirectory> directory(new CacheDirectory(std::move(fd), path, limit));
  auto usage =
      open_cache_file(directory->fd(), kUsageFile, CacheAccess::kReadWrite, CacheMake::kIfMissing);
  if (usage) {
    directory->usage_ = *std::move(usage);
  } else if (!is_forbidden(usage.error().sys_errno)) {
    return in_file(std::move(usage).error(), path + "/" + kUsageFile);
  }
  return directory;
}

Result<CacheDirectory::Usage> CacheDirectory::lock_usage(std::chrono::milliseconds limit) {
  Usage lock;
  {
    std::unique_lock thread(mutex_);
    if (given_back_.wait_for(thread, limit, [&] { return !is_taken_; })) {
      is_taken_ = true;
      lock.thread.reset(this);
    }
  }
  if (lock.thread) lock.process = FileLock::take(usage_.get(), 0, 1, limit);
  if (lock.process.held()) return lock;
  return in_folder(fail(ErrorKind::kIo,
                        "somebody else holds the cache's lock (usage) for too "
                        "long, or the file system has no locks"),
                   path_);
}

void CacheDirectory::give_back_usage() {
  {
    const std::lock_guard lock(mutex_);
    is_taken_ = false;
  }
  given_back_.notify_one();
}

// As two numbers, each the other's complement: a file that was never written, or torn, is not taken
// for a number. Then all is taken to be full, and counted.
Result<uint64_t> CacheDirectory::read_usage() const {
  std::array<std::byte, 16> bytes{};
  const ssize_t got = ::pread(usage_.get(), bytes.data(), bytes.size(), 0);
  if (got < 0) return in_folder(fail_errno(errno, "cannot read the file \"usage\""), path_);
  const uint64_t used = load_be<uint64_t>(bytes, 0);
  return used == ~load_be<uint64_t>(bytes, 8) ? used : limit_;
}

Result<void> CacheDirectory::write_usage(uint64_t used) const {
  std::array<std::byte, 16> bytes{};
  store_be<uint64_t>(bytes, 0, used);
  store_be<uint64_t>(bytes, 8, ~used);
  const ssize_t put = ::pwrite(usage_.get(), bytes.data(), bytes.size(), 0);
  if (put == static_cast<ssize_t>(bytes.size())) return {};
  return in_folder(fail_errno(put < 0 ? errno : ENOSPC, "cannot write the file \"usage\""), path_);
}

Result<CacheDirectory::Room> CacheDirectory::make_room(uint64_t bytes) {
  Room room;
  if (!is_writable() || bytes > limit_) return room;
  const Usage lock = TRY(lock_usage(kRoomTime));
  uint64_t used = TRY(read_usage());
  if (!range_within(used, bytes, limit_)) {
    used = TRY(evict_to(limit_ - std::min(limit_, std::max(bytes, limit_ / kSlackShare))));
    room.evicted = true;
  }
  if (range_within(used, bytes, limit_)) {
    used += bytes;
    room.is_there = true;
  }
  TRY(write_usage(used));
  return room;
}

Result<uint64_t> CacheDirectory::trim(uint64_t bytes) {
  if (!is_writable()) {
    return in_folder(fail(ErrorKind::kDenied, "the cache's folder cannot be written to"), path_);
  }
  for (uint64_t before = std::numeric_limits<uint64_t>::max();;) {
    const Usage lock = TRY(lock_usage(kUsageTime));
    const uint64_t used = TRY(evict_to(bytes));
    TRY(write_usage(used));
    // Not for ever, when others store as fast as this evicts.
    if (used <= bytes || used >= before) return used;
    before = used;
  }
}

Result<std::vector<CacheDirectory::File>> CacheDirectory::files() const {
  // An own description: who lists moves its position.
  const int fd = ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseFolder> folder(fd < 0 ? nullptr : ::fdopendir(fd));
  if (!folder) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return in_folder(fail_errno(error, "cannot list the cache's folder"), path_);
  }
  std::vector<File> all;
  errno = 0;
  while (const dirent* entry = ::readdir(folder.get())) {
    struct stat status;
    const auto name = parse_cache_file_name(entry->d_name);
    if (name && ::fstatat(fd_.get(), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(status.st_mode)) {
      const int64_t used = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
      all.push_back({.name = entry->d_name,
                     .bytes = static_cast<uint64_t>(status.st_blocks) * kBlockUnit,
                     .used_ns = used,
                     .goes_ns = used + (name->is_boot ? kBootStays.count() : 0)});
    }
    errno = 0;
  }
  if (errno != 0) return in_folder(fail_errno(errno, "cannot list the cache's folder"), path_);
  return all;
}

Result<std::vector<std::byte>> CacheDirectory::read_boot_file(const std::string& object) const {
  const std::string name = CacheFileName{.object = object, .is_boot = true}.to_string();
  auto opened = open_cache_file(fd_.get(), name, CacheAccess::kRead);
  if (!opened) return in_file(std::move(opened).error(), path_ + "/" + name);
  const UniqueFd fd = *std::move(opened);
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) {
    return in_folder(fail_errno(errno, "cannot look at the file {}", name), path_);
  }
  const auto size = static_cast<size_t>(status.st_size);
  if (size > kLargestBootFile) {
    return in_folder(
        fail(ErrorKind::kLimit, "{}: {} bytes are more than {}", name, size, kLargestBootFile),
        path_);
  }
  std::vector<std::byte> bytes(size);
  (void)::futimens(fd.get(), nullptr);  // it is used
  const ssize_t got = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
  bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
  return bytes;
}

// A new file each time: two that write at once make two files, of which the last one counts. One
// that is not whole is noticed by its digest.
Result<void> CacheDirectory::write_boot_file(const std::string& object, ByteSpan bytes) const {
  const std::string name = CacheFileName{.object = object, .is_boot = true}.to_string();
  (void)::unlinkat(fd_.get(), name.c_str(), 0);
  auto made = open_cache_file(fd_.get(), name, CacheAccess::kReadWrite, CacheMake::kAlways);
  if (!made) return in_file(std::move(made).error(), path_ + "/" + name);
  const UniqueFd fd = *std::move(made);
  const ssize_t put = ::pwrite(fd.get(), bytes.data(), bytes.size(), 0);
  if (put == static_cast<ssize_t>(bytes.size())) return {};
  return in_folder(fail_errno(put < 0 ? errno : ENOSPC, "cannot write the file {}", name), path_);
}

// Under the lock. What is left; more than `bytes` when that would take long.
Result<uint64_t> CacheDirectory::evict_to(uint64_t bytes) {
  std::vector<File> all = TRY(files());
  uint64_t used = 0;
  for (const File& file : all) used += file.bytes;
  if (used <= bytes) return used;
  std::ranges::sort(all, {}, &File::goes_ns);
  all.resize(std::min(all.size(), kEvictedAtOnce));
  for (const File& file : all) {
    if (used <= bytes) break;
    if (::unlinkat(fd_.get(), file.name.c_str(), 0) != 0 && errno != ENOENT) {
      return in_folder(fail_errno(errno, "cannot remove the file \"{}\"", file.name), path_);
    }
    used -= file.bytes;
  }
  return used;
}

Result<CacheContents> CacheDirectory::contents() const {
  CacheContents contents;
  std::unordered_map<std::string, size_t> places;
  for (const File& file : TRY(files())) {
    contents.bytes += file.bytes;
    const auto name = parse_cache_file_name(file.name);
    if (!name) continue;
    const auto [place, is_new] = places.try_emplace(name->object, contents.objects.size());
    if (is_new) contents.objects.push_back({.facts = {}, .name = name->object});
    CachedObject& object = contents.objects[place->second];
    object.bytes += file.bytes;
    object.last_use = std::max(object.last_use, file.used_ns / 1'000'000'000);
    if (name->is_boot || !object.facts.id.empty()) continue;
    const auto fd = open_cache_file(fd_.get(), file.name, CacheAccess::kRead);
    GroupHeader header{};
    if (!fd || ::pread(fd->get(), header.data(), header.size(), 0) != ssize_t{header.size()})
      continue;
    if (const auto facts = read_group_header(header)) object.facts = *facts;
  }
  std::ranges::sort(contents.objects, std::ranges::greater(), &CachedObject::last_use);
  return contents;
}

}  // namespace underlay
