#include "tools/thin/registry_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <thread>

#include "tools/thin/fault_point.h"
#include "tools/thin/steps.h"

namespace underlay::thin {
namespace {

constexpr size_t kMaxBytes = 64 << 20;  // some 100,000 volumes
constexpr std::chrono::seconds kLockWait{60};
constexpr std::chrono::milliseconds kLockPoll{20};

std::string file_in(const std::string& folder) { return folder + "/registry.json"; }
std::string lock_in(const std::string& folder) { return folder + "/lock"; }

Failure failed(const char* what, const std::string& path) {
  return in_file(fail_errno(errno, "{}", what), path);
}

Result<std::string> read_all(int fd, const std::string& path) {
  std::string text;
  char part[65536];
  for (;;) {
    const ssize_t count = ::read(fd, part, sizeof part);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("cannot read", path);
    if (count == 0) return text;
    text.append(part, static_cast<size_t>(count));
    if (text.size() > kMaxBytes) {
      return in_file(fail(ErrorKind::kLimit, "larger than {} bytes: no registry", kMaxBytes), path);
    }
  }
}

Result<void> write_all(int fd, const std::string& text, const std::string& path) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(fd, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return failed("cannot write", path);
    done += static_cast<size_t>(count);
  }
  return {};
}

Result<void> sync_folder(const std::string& folder) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return failed("cannot be written to disk", folder);
  return {};
}

// The process that holds the lock wrote its number there.
std::string lock_holder(int lock) {
  char text[32];
  const ssize_t count = ::pread(lock, text, sizeof text - 1, 0);
  return count <= 0 ? "another process"
                    : "process " + std::string(text, static_cast<size_t>(count));
}

Result<UniqueFd> take_lock(const std::string& folder) {
  const std::string path = lock_in(folder);
  UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid()) return failed("cannot be opened", path);
  const auto end = std::chrono::steady_clock::now() + kLockWait;
  while (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return failed("cannot be locked", path);
    if (interrupted()) return fail(ErrorKind::kUsage, "interrupted");
    if (std::chrono::steady_clock::now() >= end) {
      return in_file(
          fail(ErrorKind::kUsage, "{} has held the lock for {} s: wait for it, or end it",
               lock_holder(lock.get()), kLockWait.count()),
          path);
    }
    std::this_thread::sleep_for(kLockPoll);
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(lock.get(), 0) != 0 ||
      ::pwrite(lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return failed("cannot be written", path);
  }
  return lock;
}

Result<void> make_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), error);
  if (::mkdir(folder.c_str(), 0700) != 0) {
    if (errno == EEXIST) return {};
    return failed("cannot be made", folder);
  }
  return sync_folder(std::filesystem::path(folder).parent_path());
}

}  // namespace

RegistryStore::RegistryStore(std::string folder, UniqueFd lock, Registry registry)
    : folder_(std::move(folder)), lock_(std::move(lock)), registry_(std::move(registry)) {}

Result<RegistryStore> RegistryStore::open(const std::string& folder) {
  TRY(make_folder(folder));
  UniqueFd lock = TRY(take_lock(folder));
  Registry registry = TRY(read_registry(folder));
  return RegistryStore(folder, std::move(lock), std::move(registry));
}

Result<void> RegistryStore::write(Registry next) {
  const std::string text = TRY(to_json(next));
  // What would not read back must not replace what does.
  if (const auto parsed = registry_from_json(text); !parsed) {
    return in_file(parsed.error(), file_in(folder_));
  }
  const std::string path = file_in(folder_);
  const std::string temporary = unfinished_registry(folder_);
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd.valid()) return failed("cannot be made", temporary);
  TRY(write_all(fd.get(), text, temporary));
  if (::fsync(fd.get()) != 0) return failed("cannot be written to disk", temporary);
  fault_point("registry-write");
  if (::rename(temporary.c_str(), path.c_str()) != 0) return failed("cannot be replaced", path);
  TRY(sync_folder(folder_));
  registry_ = std::move(next);
  return {};
}

std::string unfinished_registry(const std::string& folder) { return file_in(folder) + ".new"; }

Result<Registry> read_registry(const std::string& folder) {
  const std::string path = file_in(folder);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) return Registry{};
    return failed("cannot be opened", path);
  }
  const std::string text = TRY(read_all(fd.get(), path));
  auto registry = registry_from_json(text);
  if (!registry) return in_file(std::move(registry).error(), path);
  return registry;
}

}  // namespace underlay::thin
