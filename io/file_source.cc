#include "io/file_source.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

namespace underlay {
namespace {

constexpr int kTransientRetries = 5;

// cachestat(2), Linux 6.5, which this C library does not know. It is not there, or is not allowed
// for files of others: then nothing is known to be in memory.
constexpr long kCachestat = 451;
struct CachestatRange {
  uint64_t offset = 0;
  uint64_t length = 0;
};
struct Cachestat {
  uint64_t in_cache = 0;  // pages
  uint64_t dirty = 0;
  uint64_t writeback = 0;
  uint64_t evicted = 0;
  uint64_t recently_evicted = 0;
};

class FileSource final : public Source {
 public:
  FileSource(UniqueFd fd, std::string name, uint64_t size, const struct stat& status)
      : fd_(std::move(fd)), name_(std::move(name)), size_(size), status_(status) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<int> fd() const override { return fd_.get(); }

  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    if (!range_within(offset, out.size(), size_)) return past_end(offset, out.size());
    int retries = 0;
    while (!out.empty()) {
      const ssize_t got = ::pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
      if (got == 0) {
        doubted_.store(true, std::memory_order_relaxed);
        return past_end(offset, out.size());
      }
      if (got < 0) {
        const int error = errno;
        const bool transient = error == EINTR || error == EAGAIN || error == ENOMEM;
        if (transient && retries++ < kTransientRetries) continue;
        doubted_.store(true, std::memory_order_relaxed);
        return in_file(fail_errno(error, "cannot read {} bytes", out.size()), name_, offset);
      }
      offset += static_cast<uint64_t>(got);
      out = out.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  size_t read_cached(uint64_t offset, MutableByteSpan out) const override {
    if (out.empty() || !range_within(offset, out.size(), size_)) return 0;
    if (!nowait_works_.load(std::memory_order_relaxed)) return 0;
    const iovec vector{out.data(), out.size()};
    const ssize_t got = ::preadv2(fd_.get(), &vector, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (got < 0 && errno == EOPNOTSUPP) nowait_works_.store(false, std::memory_order_relaxed);
    return got > 0 ? static_cast<size_t>(got) : 0;
  }

  // cachestat() counts pages that are being read, too. They come in ascending order: when the last
  // one is there, all are. It also counts those that could not be read: once there was such a one,
  // its word is taken no more.
  bool in_memory(uint64_t offset, uint64_t length) const override {
    if (!cachestat_works_.load(std::memory_order_relaxed)) return false;
    if (doubted_.load(std::memory_order_relaxed)) return false;
    const CachestatRange range{.offset = offset, .length = length};
    Cachestat pages{};
    if (::syscall(kCachestat, fd_.get(), &range, &pages, 0) != 0) {
      cachestat_works_.store(false, std::memory_order_relaxed);
      return false;
    }
    const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    const uint64_t first = offset / page;
    const uint64_t last = (offset + length - 1) / page;
    std::byte byte;
    return pages.in_cache == last - first + 1 &&
           read_cached(offset + length - 1, MutableByteSpan(&byte, 1)) == 1;
  }

  void prefetch(uint64_t offset, uint64_t length) const override {
    (void)::posix_fadvise(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(length),
                          POSIX_FADV_WILLNEED);
  }

  SourceRun run_at(uint64_t offset, uint64_t length) const override {
    const SourceRun all_data{.hole = false, .length = length};
    if (!S_ISREG(status_.st_mode)) return all_data;
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0) {
      // ENXIO: no data from here on, or the file has shrunk to less than `offset`.
      struct stat now;
      const bool hole = errno == ENXIO && ::fstat(fd_.get(), &now) == 0 &&
                        static_cast<uint64_t>(now.st_size) >= size_;
      return {.hole = hole, .length = length};
    }
    if (static_cast<uint64_t>(data) > offset) {
      return {.hole = true, .length = std::min(length, static_cast<uint64_t>(data) - offset)};
    }
    const off_t hole = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_HOLE);
    if (hole < 0 || static_cast<uint64_t>(hole) <= offset) return all_data;
    return {.hole = false, .length = std::min(length, static_cast<uint64_t>(hole) - offset)};
  }

  Result<void> check_unchanged() const override {
    struct stat now;
    if (::fstat(fd_.get(), &now) != 0) {
      return in_file(fail_errno(errno, "cannot stat the open file"), name_);
    }
    if (!S_ISREG(status_.st_mode)) return {};
    if (now.st_size != status_.st_size) {
      return in_file(fail(ErrorKind::kIo, "size changed from {} to {} bytes while it is served",
                          status_.st_size, now.st_size),
                     name_);
    }
    if (now.st_mtim.tv_sec != status_.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != status_.st_mtim.tv_nsec) {
      return in_file(fail(ErrorKind::kIo, "was written to while it is served"), name_);
    }
    return {};
  }

  bool was_replaced() const override {
    struct stat now;
    return ::stat(name_.c_str(), &now) != 0 || now.st_dev != status_.st_dev ||
           now.st_ino != status_.st_ino;
  }

  std::optional<FileIdentity> identity() const override {
    return identity_of(status_);
  }

 private:
  Failure past_end(uint64_t offset, size_t length) const {
    return in_file(fail(ErrorKind::kTruncated,
                        "{} bytes lie beyond the end of the file, which has {} bytes: it is "
                        "truncated",
                        length, size_),
                   name_, offset);
  }

  UniqueFd fd_;
  std::string name_;
  uint64_t size_;
  struct stat status_;  // as it was when opened
  mutable std::atomic<bool> nowait_works_ = true;
  mutable std::atomic<bool> cachestat_works_ = true;
  mutable std::atomic<bool> doubted_ = false;  // a read has failed
};

}  // namespace

FileIdentity identity_of(const struct stat& status) {
  // A device has several nodes, each with an inode of its own.
  if (S_ISBLK(status.st_mode)) return {.device = status.st_rdev, .inode = 0};
  return {.device = status.st_dev, .inode = status.st_ino};
}

Result<std::shared_ptr<const Source>> file_source_of(UniqueFd fd, std::string name,
                                                     FileSharing sharing) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return in_file(fail_errno(errno, "cannot stat"), name);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
    return in_file(
        fail(ErrorKind::kUnsupported, "{}; give a regular file or a block device",
             S_ISDIR(status.st_mode) ? "is a directory" : "is neither a file nor a block device"),
        name);
  }
  if (sharing == FileSharing::kNoWriter) TRY(lock_for_reading(fd.get(), name));
  uint64_t size = static_cast<uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode) && ::ioctl(fd.get(), BLKGETSIZE64, &size) != 0) {
    return in_file(fail_errno(errno, "cannot learn the size of the block device"), name);
  }
  // A template's time of access is nobody's business, and keeping it costs on each read. Refused
  // for files of others.
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags >= 0) (void)::fcntl(fd.get(), F_SETFL, flags | O_NOATIME);
  return std::make_shared<const FileSource>(std::move(fd), std::move(name), size, status);
}

Result<std::shared_ptr<const Source>> open_file_source(const std::string& path,
                                                       FileSharing sharing) {
  // O_NONBLOCK: opening a FIFO must not wait for its writer. It changes nothing for files.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) {
    Error error = fail_errno(errno, "cannot open").value();
    if (error.sys_errno == ENOENT) error.kind = ErrorKind::kNotFound;
    if (error.sys_errno == EACCES || error.sys_errno == EPERM) error.kind = ErrorKind::kDenied;
    return in_file(std::move(error), path);
  }
  return file_source_of(std::move(fd), path, sharing);
}

}  // namespace underlay
