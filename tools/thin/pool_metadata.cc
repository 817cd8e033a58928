// What only a pool's metadata knows: thin ids, and what each has mapped. Read from a metadata
// snapshot while the pool is in use.
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <thread>

#include "io/unique_fd.h"
#include "tools/thin/run_program.h"
#include "tools/thin/steps.h"
#include "tools/thin/thin_delta.h"
#include "tools/thin/thin_dump.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

constexpr auto kLockTime = std::chrono::seconds(60);
constexpr auto kLockPause = std::chrono::milliseconds(20);

// A pool has one metadata snapshot. Two readers would release it under each other, and the kernel
// would write over what they read: the lock, which ends with its process, is for one at a time.
Result<UniqueFd> lock_metadata(const std::string& metadata) {
  UniqueFd device(::open(metadata.c_str(), O_RDONLY | O_CLOEXEC));
  if (!device.valid()) return in_file(fail_errno(errno, "opening the pool's metadata"), metadata);
  const auto last = std::chrono::steady_clock::now() + kLockTime;
  while (::flock(device.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return in_file(fail_errno(errno, "locking the pool's metadata"), metadata);
    }
    if (interrupted()) return fail(ErrorKind::kUsage, "interrupted");
    if (std::chrono::steady_clock::now() >= last) {
      return in_file(fail(ErrorKind::kUsage,
                          "another process has been reading the pool's metadata "
                          "for a minute: try again"),
                     metadata);
    }
    std::this_thread::sleep_for(kLockPause);
  }
  return device;
}

// Calls `read` while the pool holds a metadata snapshot; the snapshot is always released.
template <class Read>
auto with_metadata_snapshot(const std::string& pool, const std::string& metadata, Read&& read)
    -> decltype(read()) {
  const UniqueFd lock = TRY(lock_metadata(metadata));
  // With the lock held, one that is there was left by a process that died.
  if (TRY(pool_status(pool)).has_metadata_snapshot) TRY(dm_message(pool, "release_metadata_snap"));
  TRY(dm_message(pool, "reserve_metadata_snap"));
  auto result = read();
  if (auto released = dm_message(pool, "release_metadata_snap"); !released && result) {
    return Failure(std::move(released).error());
  }
  return result;
}

Result<std::vector<uint32_t>> parse_ids(const std::string& text) {
  std::vector<uint32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto is_space = [](char c) { return c == ' ' || c == '\n'; };
  for (;;) {
    at = std::find_if_not(at, end, is_space);
    if (at == end) return ids;
    uint32_t id = 0;
    const auto [after, code] = std::from_chars(at, end, id);
    if (code != std::errc() || (after != end && !is_space(*after))) {
      return fail(ErrorKind::kMalformed, "thin_ls: '{}' is not a list of thin ids",
                  printable(text, 100));
    }
    ids.push_back(id);
    at = after;
  }
}

}  // namespace

Result<std::vector<MappedRun>> pool_mapped_runs(const std::string& pool,
                                                const std::string& metadata, uint32_t thin_id) {
  return with_metadata_snapshot(pool, metadata, [&]() -> Result<std::vector<MappedRun>> {
    ThinDumpReader reader(thin_id);
    TRY(run_program({"thin_dump", "-m", "--dev-id", std::to_string(thin_id), metadata},
                    [&](std::string_view text) { return reader.add(text); }));
    return reader.finish();
  });
}

Result<std::vector<MappedRun>> pool_changed_runs(const std::string& pool,
                                                 const std::string& metadata, uint32_t since,
                                                 uint32_t thin_id) {
  return with_metadata_snapshot(pool, metadata, [&]() -> Result<std::vector<MappedRun>> {
    ThinDeltaReader reader;
    TRY(run_program({"thin_delta", "-m", "--thin1", std::to_string(since), "--thin2",
                     std::to_string(thin_id), metadata},
                    [&](std::string_view text) { return reader.add(text); }));
    return reader.finish();
  });
}

Result<std::vector<uint32_t>> pool_thin_ids(const std::string& pool, const std::string& metadata) {
  return with_metadata_snapshot(pool, metadata, [&]() -> Result<std::vector<uint32_t>> {
    std::string text;
    TRY(run_program({"thin_ls", "-m", "--no-headers", "-o", "DEV", metadata},
                    [&](std::string_view piece) -> Result<void> {
                      text += piece;
                      return {};
                    }));
    return parse_ids(text);
  });
}

}  // namespace underlay::thin
