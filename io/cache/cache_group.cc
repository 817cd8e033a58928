#include "io/cache/cache_group.h"

#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <vector>

#include "io/cache/cache_file.h"

namespace underlay {
namespace {

static_assert(kGroupBlocks == 64, "a bit of CacheGroup::settled_ for each");

// Bytes behind any file's end, which are locked in place of what they stand for.
constexpr off_t kHeaderLock = off_t{1} << 40;
constexpr off_t kBlockLocks = kHeaderLock + 1;

// Making a file takes two writes.
constexpr std::chrono::milliseconds kMakingTime{2'000};
constexpr int kTries = 4;  // a file may be evicted between two looks at it

off_t place_of(unsigned block) {
  return static_cast<off_t>(kGroupData + uint64_t{block} * kCacheBlock);
}
off_t place_of_digest(unsigned block) {
  return static_cast<off_t>(kGroupTable + uint64_t{block} * kDigestBytes);
}
uint64_t bit_of(unsigned block) { return uint64_t{1} << block; }

int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// How many bytes there were: less than out.size() only at the end of the file.
Result<size_t> read_fully(int fd, off_t offset, MutableByteSpan out) {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t got =
        ::pread(fd, out.data() + done, out.size() - done, offset + static_cast<off_t>(done));
    if (got == 0) break;
    if (got < 0 && errno != EINTR) return fail_errno(errno, "cannot read");
    if (got > 0) done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> write_fully(int fd, off_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail_errno(put < 0 ? errno : ENOSPC, "cannot write");
    offset += put;
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return {};
}

struct OpenedGroup {
  UniqueFd fd;
  bool writable = true;
};

bool is_forbidden(int error) { return error == EROFS || error == EACCES || error == EPERM; }

Result<OpenedGroup> open_file(int folder, const std::string& name, CacheGroup::Make make) {
  auto opened =
      open_cache_file(folder, name, CacheAccess::kReadWrite,
                      make == CacheGroup::Make::kYes ? CacheMake::kIfMissing : CacheMake::kNo);
  const bool writable = opened || !is_forbidden(opened.error().sys_errno);
  if (!writable) opened = open_cache_file(folder, name, CacheAccess::kRead);
  if (!opened) return Failure(std::move(opened).error());
  return OpenedGroup{.fd = *std::move(opened), .writable = writable};
}

enum class HeaderState : uint8_t { kRight, kOther, kMissing, kDamaged };

Result<HeaderState> look_at_header(int fd, const GroupHeader& expected) {
  GroupHeader header{};
  const size_t got = TRY(read_fully(fd, 0, header));
  if (got == 0) return HeaderState::kMissing;
  if (got == header.size() && header == expected) return HeaderState::kRight;
  const bool whole = got == header.size() && read_group_header(header).has_value();
  return whole ? HeaderState::kOther : HeaderState::kDamaged;
}

// With the table, which says that no block is here yet.
Result<void> write_header(int fd, const GroupHeader& header) {
  const std::vector<std::byte> table(kGroupData - kGroupTable);
  TRY(write_fully(fd, static_cast<off_t>(kGroupTable), table));
  return write_fully(fd, 0, header);
}

bool is_unlinked(int fd) {
  struct stat status;
  return ::fstat(fd, &status) == 0 && status.st_nlink == 0;
}

// Under the lock of the header, because somebody may just be making the file. False: look for the
// file anew.
Result<bool> make_header(int folder, const std::string& name, int fd, const GroupHeader& header) {
  const FileLock lock = FileLock::take(fd, kHeaderLock, 1, kMakingTime);
  if (is_unlinked(fd)) return false;
  switch (TRY(look_at_header(fd, header))) {
    case HeaderState::kRight:
      return true;
    case HeaderState::kOther:
      return fail(ErrorKind::kDenied, "belongs to another image whose name is the same by chance");
    case HeaderState::kDamaged:
      // Not mended: somebody may be reading blocks of it that are right.
      (void)::unlinkat(folder, name.c_str(), 0);
      return false;
    case HeaderState::kMissing:
      if (auto written = write_header(fd, header); !written) {
        (void)::unlinkat(folder, name.c_str(), 0);
        return Failure(std::move(written).error());
      }
      return true;
  }
  return false;
}

}  // namespace

CacheGroup::CacheGroup(UniqueFd fd, bool writable)
    : fd_(std::move(fd)), writable_(writable), touched_(0) {}

Result<std::shared_ptr<CacheGroup>> CacheGroup::open(int folder, const std::string& name,
                                                     const GroupHeader& header, Make make) {
  for (int i = 0; i < kTries; ++i) {
    auto opened = open_file(folder, name, make);
    if (!opened) return in_file(std::move(opened).error(), name);
    const auto state = look_at_header(opened->fd.get(), header);
    if (!state) return in_file(Error(state.error()), name);
    if (*state != HeaderState::kRight) {
      if (!opened->writable) break;
      const auto made = make_header(folder, name, opened->fd.get(), header);
      if (!made) return in_file(Error(made.error()), name);
      if (!*made) continue;
    }
    return std::shared_ptr<CacheGroup>(new CacheGroup(std::move(opened->fd), opened->writable));
  }
  return in_file(fail(ErrorKind::kNotFound, "is not there"), name);
}

Result<CacheGroup::Found> CacheGroup::read(unsigned block, size_t length, size_t skip,
                                           MutableByteSpan out) {
  assert(range_within(skip, out.size(), length) && length <= kCacheBlock);
  if ((bad_.load(std::memory_order_relaxed) & bit_of(block)) != 0) return Found::kNo;
  auto found = read_block(block, length, skip, out);
  if (!found || *found == Found::kDamaged) forget(block);
  return found;
}

Result<CacheGroup::Found> CacheGroup::read_block(unsigned block, size_t length, size_t skip,
                                                 MutableByteSpan out) {
  if (out.size() == length) return read_and_check(block, out);
  std::vector<std::byte> whole(length);
  const Found found = TRY(read_and_check(block, whole));
  if (found == Found::kYes) {
    std::copy_n(whole.begin() + static_cast<ptrdiff_t>(skip), out.size(), out.begin());
  }
  return found;
}

Result<CacheGroup::Found> CacheGroup::read_and_check(unsigned block, MutableByteSpan whole) {
  BlockDigest digest{};
  (void)TRY(read_fully(fd_.get(), place_of_digest(block), digest));
  if (is_zero(digest)) return Found::kNo;
  const size_t got = TRY(read_fully(fd_.get(), place_of(block), whole));
  if (got < whole.size() || digest_of(whole) != digest) return Found::kDamaged;
  found_right_.fetch_or(bit_of(block), std::memory_order_release);
  return Found::kYes;
}

size_t CacheGroup::read_now(unsigned block, size_t skip, MutableByteSpan out) {
  if ((settled_.load(std::memory_order_acquire) & bit_of(block)) == 0) return 0;
  const iovec part{.iov_base = out.data(), .iov_len = out.size()};
  const ssize_t got =
      ::preadv2(fd_.get(), &part, 1, place_of(block) + static_cast<off_t>(skip), RWF_NOWAIT);
  if (got <= 0) return 0;
  used_.store(true, std::memory_order_relaxed);
  return static_cast<size_t>(got);
}

Result<void> CacheGroup::keep(std::chrono::seconds interval) {
  if (used_.exchange(false, std::memory_order_relaxed)) touch(interval);
  auto settled = settle();
  if (!settled) forget_all();
  return settled;
}

// What nobody has asked for again is not waited for.
Result<void> CacheGroup::settle() {
  const uint64_t blocks =
      found_right_.load(std::memory_order_acquire) & ~settled_.load(std::memory_order_relaxed);
  if (blocks == 0) return {};
  if (::fdatasync(fd_.get()) != 0) return fail_errno(errno, "cannot bring blocks to the disk");
  // Without those that were forgotten meanwhile.
  settled_.fetch_or(blocks & found_right_.load(std::memory_order_acquire),
                    std::memory_order_release);
  return {};
}

bool CacheGroup::has(unsigned block) const {
  if ((settled_.load(std::memory_order_relaxed) & bit_of(block)) != 0) return true;
  if ((bad_.load(std::memory_order_relaxed) & bit_of(block)) != 0) return false;
  BlockDigest digest{};
  const auto got = read_fully(fd_.get(), place_of_digest(block), digest);
  return got && !is_zero(digest);
}

Result<void> CacheGroup::store(unsigned block, ByteSpan bytes) {
  assert(bytes.size() <= kCacheBlock);
  TRY(write_fully(fd_.get(), place_of(block), bytes));
  TRY(write_fully(fd_.get(), place_of_digest(block), digest_of(bytes)));
  bad_.fetch_and(~bit_of(block), std::memory_order_relaxed);
  return {};
}

void CacheGroup::forget(unsigned block) {
  found_right_.fetch_and(~bit_of(block), std::memory_order_release);
  settled_.fetch_and(~bit_of(block), std::memory_order_release);
  const bool forgotten = writable_ && write_fully(fd_.get(), place_of_digest(block), BlockDigest{});
  if (!forgotten) bad_.fetch_or(bit_of(block), std::memory_order_relaxed);
}

void CacheGroup::forget_all() {
  found_right_ = 0;
  settled_ = 0;
  bad_ = ~uint64_t{0};
  const std::vector<std::byte> table(kGroupData - kGroupTable);
  if (writable_) (void)write_fully(fd_.get(), static_cast<off_t>(kGroupTable), table);
}

FileLock CacheGroup::lock(unsigned first, unsigned count, std::chrono::milliseconds limit) const {
  return FileLock::take(fd_.get(), kBlockLocks + off_t{first}, off_t{count}, limit);
}

bool CacheGroup::is_evicted() const { return is_unlinked(fd_.get()); }

void CacheGroup::touch(std::chrono::seconds interval) {
  const int64_t now = seconds_now();
  int64_t before = touched_.load(std::memory_order_relaxed);
  if (now - before < interval.count()) return;
  if (!touched_.compare_exchange_strong(before, now, std::memory_order_relaxed)) return;
  if (writable_) (void)::futimens(fd_.get(), nullptr);
}

}  // namespace underlay
