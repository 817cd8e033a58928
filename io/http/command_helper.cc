#include "io/http/command_helper.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <vector>

extern char** environ;

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;

// How it went, before the output.
struct Outcome {
  int32_t status = 0;  // as waitpid() tells it; -1: it could not be run, or took too long
  uint32_t size = 0;   // bytes of output that follow
};

bool send_all(int fd, const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t put = ::send(fd, from, size, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    from += put;
    size -= static_cast<size_t>(put);
  }
  return true;
}

// 0: all of it; else an errno.
int receive_all(int fd, void* data, size_t size) {
  char* to = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = ::recv(fd, to, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return EPIPE;
    to += got;
    size -= static_cast<size_t>(got);
  }
  return 0;
}

// ---- in the helper

// False when the pipe brings no more within the time that is left.
bool wait_for_output(int fd, Clock::time_point until) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
  pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
  return left > 0 && ::poll(&waiting, 1, static_cast<int>(left)) > 0;
}

// Reads until the command closes its output. False when it does not in time, or says too much.
bool read_output(int fd, Clock::time_point until, std::vector<char>& output) {
  std::array<char, 4096> part{};
  while (wait_for_output(fd, until)) {
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) return true;
    if (got < 0 || output.size() + static_cast<size_t>(got) > CommandHelper::kMaxOutput) {
      return false;
    }
    output.insert(output.end(), part.begin(), part.begin() + got);
  }
  return false;
}

// False when it does not end in time: some go on behind a closed output. It stays to be waited for.
bool wait_for_end(pid_t child, Clock::time_point until) {
  const UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  return fd.valid() && wait_for_output(fd.get(), until);
}

// The exit status as waitpid() has it; -1 when it did not come to that.
int run_once(const char* command, std::vector<char>& output) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return -1;
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
  ::posix_spawnattr_init(&attributes);
  // So that all that the command started can be ended with it.
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  std::array<const char*, 4> words{"sh", "-c", command, nullptr};
  pid_t child = -1;
  const int failed = ::posix_spawn(&child, "/bin/sh", &actions, &attributes,
                                   const_cast<char* const*>(words.data()), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (failed != 0) return -1;
  in.reset();
  const auto until = Clock::now() + CommandHelper::kTime;
  const bool ended = read_output(out.get(), until, output) && wait_for_end(child, until);
  if (!ended) ::kill(-child, SIGKILL);
  int status = -1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return ended ? status : -1;
}

// A descriptor above standard error, and no other: images and clients are none of its business, nor
// is whoever waits for the end of the program's output.
int keep_only(int channel) {
  constexpr int kKept = STDERR_FILENO + 1;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0 || ::dup2(null, STDIN_FILENO) < 0 || ::dup2(null, STDOUT_FILENO) < 0) return -1;
  struct stat status;
  const bool is_pipe = ::fstat(STDERR_FILENO, &status) == 0 && S_ISFIFO(status.st_mode);
  if (is_pipe && ::dup2(null, STDERR_FILENO) < 0) return -1;
  if (channel != kKept && ::dup3(channel, kKept, O_CLOEXEC) < 0) return -1;
  (void)::syscall(SYS_close_range, kKept + 1, ~0u, 0);
  return kKept;
}

[[noreturn]] void serve(int inherited, const char* command) {
  const int channel = keep_only(inherited);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGCHLD}) {
    std::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  char order = 0;
  while (receive_all(channel, &order, 1) == 0) {
    std::vector<char> output;
    Outcome outcome{.status = run_once(command, output)};
    outcome.size = static_cast<uint32_t>(output.size());
    if (!send_all(channel, &outcome, sizeof(outcome))) break;
    if (!send_all(channel, output.data(), output.size())) break;
  }
  ::_exit(0);
}

}  // namespace

Result<std::unique_ptr<CommandHelper>> CommandHelper::start(const std::string& command) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(errno, "cannot start a process for the command");
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const timeval limit{.tv_sec = kTime.count() + 5, .tv_usec = 0};
  if (::setsockopt(ours.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) {
    return fail_errno(errno, "cannot start a process for the command");
  }
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "cannot start a process for the command");
  if (child == 0) {
    // Nobody's child, so that nobody must wait for its end.
    const pid_t helper = ::fork();
    if (helper == 0) serve(theirs.get(), command.c_str());
    ::_exit(helper < 0 ? 1 : 0);
  }
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return std::unique_ptr<CommandHelper>(new CommandHelper(std::move(ours)));
}

// Once something is out of order there is no telling which answer belongs to which question.
Failure CommandHelper::give_up(int error) {
  channel_.reset();
  return fail_errno(error, "the process that runs the command does not answer: start again");
}

Result<std::string> CommandHelper::run() {
  const std::lock_guard lock(mutex_);
  if (!channel_.valid()) return give_up(EPIPE);
  Outcome outcome;
  int error = send_all(channel_.get(), "r", 1) ? 0 : EPIPE;
  if (error == 0) error = receive_all(channel_.get(), &outcome, sizeof(outcome));
  if (error == 0 && outcome.size > kMaxOutput) error = EBADMSG;
  if (error != 0) return give_up(error);
  std::string output(outcome.size, '\0');
  error = receive_all(channel_.get(), output.data(), output.size());
  if (error != 0) return give_up(error);
  if (outcome.status == -1) {
    return fail(ErrorKind::kIo,
                "the command cannot be run, wrote more than {} bytes, or took longer than {} s",
                kMaxOutput, kTime.count());
  }
  if (!WIFEXITED(outcome.status) || WEXITSTATUS(outcome.status) != 0) {
    return fail(ErrorKind::kIo, "the command failed ({} {})",
                WIFEXITED(outcome.status) ? "exit status" : "signal",
                WIFEXITED(outcome.status) ? WEXITSTATUS(outcome.status) : WTERMSIG(outcome.status));
  }
  return output;
}

}  // namespace underlay
