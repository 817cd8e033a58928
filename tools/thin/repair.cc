#include "tools/thin/repair.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "tools/thin/attachment.h"
#include "tools/thin/pidfd.h"

namespace underlay::thin {
namespace {

using Clock = std::chrono::steady_clock;

enum Status { kDone, kFailed, kNotNeeded };
constexpr size_t kMaxAnswer = 4096;  // fits a pipe: the child never waits to be read

[[noreturn]] void work(const Host& host, const ImageRecord& image, const KernelNbdDevice& device,
                       pid_t parent, int answer) {
  if (::prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || ::getppid() != parent) ::_exit(kFailed);
  const auto result = without_exceptions([&] { return reconnect(host, image, device); });
  if (result) ::_exit(*result ? kDone : kNotNeeded);
  const std::string text = printable(result.error().to_string(), kMaxAnswer);
  (void)!::write(answer, text.data(), std::min(text.size(), kMaxAnswer));
  ::_exit(kFailed);
}

}  // namespace

Repair::Repair(pid_t pid, UniqueFd pidfd, UniqueFd answer)
    : pid_(pid), pidfd_(std::move(pidfd)), answer_(std::move(answer)), begun_(Clock::now()) {}

Result<Repair> Repair::begin(const Host& host, const ImageRecord& image,
                             const KernelNbdDevice& device) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  UniqueFd answer(ends[0]);
  const UniqueFd said(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot fork");
  if (pid == 0) work(host, image, device, parent, said.get());
  UniqueFd pidfd(::pidfd_open(pid, 0));
  if (!pidfd.valid()) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    wait_for_end(pid);
    return fail_errno(error, "cannot watch a process");
  }
  return Repair(pid, std::move(pidfd), std::move(answer));
}

Result<bool> Repair::finish() {
  const int status = wait_for_end(pid_);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kDone) return true;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNotNeeded) return false;
  std::array<char, kMaxAnswer> text{};
  const ssize_t got = ::read(answer_.get(), text.data(), text.size());
  if (got <= 0) return fail(ErrorKind::kIo, "the reconnection ended without an answer");
  return fail(ErrorKind::kIo, "{}", std::string_view(text.data(), static_cast<size_t>(got)));
}

std::chrono::milliseconds Repair::age() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun_);
}

}  // namespace underlay::thin
