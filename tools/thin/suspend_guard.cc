#include "tools/thin/suspend_guard.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "tools/thin/pidfd.h"

namespace underlay::thin {
namespace {

constexpr char kDismissed = 'd';

// The guarding process, which ends when this one does or says so.
[[noreturn]] void guard(int pipe, const std::string& name) {
  ::setsid();  // Ctrl-C ends the program, not what cleans up behind it
  char said = 0;
  ssize_t count = 0;
  do {
    count = ::read(pipe, &said, 1);
  } while (count < 0 && errno == EINTR);
  if (count == 1 && said == kDismissed) ::_exit(0);
  ::_exit(dm_resume(name) ? 0 : 1);
}

}  // namespace

SuspendGuard::SuspendGuard(std::string name, UniqueFd pipe, pid_t process)
    : name_(std::move(name)), pipe_(std::move(pipe)), process_(process) {}

SuspendGuard::SuspendGuard(SuspendGuard&& other) noexcept
    : name_(std::move(other.name_)),
      pipe_(std::move(other.pipe_)),
      process_(std::exchange(other.process_, 0)) {}

SuspendGuard::~SuspendGuard() { (void)resume(); }

Result<SuspendGuard> SuspendGuard::suspend(const std::string& name, Flush flush) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  UniqueFd theirs(ends[0]);
  UniqueFd ours(ends[1]);
  const pid_t process = ::fork();
  if (process < 0) return fail_errno(errno, "cannot start a process that guards {}", name);
  if (process == 0) {
    ours.reset();
    guard(theirs.get(), name);
  }
  SuspendGuard guarded(name, std::move(ours), process);
  if (auto suspended = dm_suspend(name, flush); !suspended) {
    guarded.dismiss();
    return Failure(std::move(suspended).error());
  }
  return guarded;
}

Result<void> SuspendGuard::resume() {
  if (process_ == 0) return {};
  auto resumed = dm_resume(name_);
  // When that failed the other process may have better luck.
  if (resumed) {
    dismiss();
  } else {
    pipe_.reset();
    process_ = 0;
  }
  return resumed;
}

void SuspendGuard::dismiss() {
  (void)!::write(pipe_.get(), &kDismissed, 1);
  pipe_.reset();
  wait_for_end(std::exchange(process_, 0));
}

}  // namespace underlay::thin
