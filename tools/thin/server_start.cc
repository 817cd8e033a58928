// Starting the server: what happens between fork and the moment when it listens.
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>

#include "tools/thin/image_plan.h"
#include "tools/thin/output.h"
#include "tools/thin/pidfd.h"
#include "tools/thin/server_process.h"
#include "tools/thin/service_user.h"

namespace underlay::thin {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kStartLimit{30};
constexpr std::chrono::milliseconds kLookAgain{3};
constexpr off_t kMaxLogBytes = 1 << 20;
constexpr size_t kLastLineBytes = 4096;

Result<void> give_to(const std::optional<ServiceUser>& user, int fd, mode_t mode) {
  if (user && ::fchown(fd, user->uid, user->gid) != 0) {
    return fail_errno(errno, "cannot give it to the user {}", kServiceUser);
  }
  if (::fchmod(fd, mode) != 0) return fail_errno(errno, "cannot set its mode");
  return {};
}

Result<void> make_folder(const std::string& folder, const std::optional<ServiceUser>& user) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(folder).parent_path(), error);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return in_file(fail_errno(errno, "cannot create the server's folder"), folder);
  }
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return in_file(fail_errno(errno, "cannot open the server's folder"), folder);
  if (auto given = give_to(user, fd.get(), 0700); !given) {
    return in_file(std::move(given).error(), folder);
  }
  return {};
}

// A folder that is there already belongs to whoever made it. The image is read without, if need be.
bool has_cache_folder(const std::string& folder, const std::optional<ServiceUser>& user) {
  struct stat status;
  if (::stat(folder.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return true;
  const auto made = make_folder(folder, user);
  if (!made) warn(fmt::format("{}; nothing is kept of what is read", made.error().to_string()));
  return made.has_value();
}

// The folder belongs to the server's user, who is not trusted: no link may lead root elsewhere.
Result<UniqueFd> open_log(const std::string& path, const std::optional<ServiceUser>& user) {
  UniqueFd fd(::open(path.c_str(),
                     O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  struct stat status {};
  if (!fd.valid() || ::fstat(fd.get(), &status) != 0) {
    return in_file(fail_errno(errno, "cannot open the server's log"), path);
  }
  if (!S_ISREG(status.st_mode) || status.st_nlink != 1) {
    return in_file(fail(ErrorKind::kDenied, "the server's log must be a regular file of one name"),
                   path);
  }
  if (auto given = give_to(user, fd.get(), 0600); !given) {
    return in_file(std::move(given).error(), path);
  }
  if (status.st_size > kMaxLogBytes && ::ftruncate(fd.get(), 0) != 0) {
    return in_file(fail_errno(errno, "cannot empty the server's log"), path);
  }
  return fd;
}

// The last line written to the log from byte `from` on; "" when there is none.
std::string last_line(int log, off_t from) {
  struct stat status {};
  if (::fstat(log, &status) != 0) return {};
  const off_t start = std::max(from, status.st_size - static_cast<off_t>(kLastLineBytes));
  std::array<char, kLastLineBytes> bytes{};
  const ssize_t got = ::pread(log, bytes.data(), bytes.size(), start);
  std::string_view text(bytes.data(), got > 0 ? static_cast<size_t>(got) : 0);
  while (text.ends_with('\n')) text.remove_suffix(1);
  if (const size_t newline = text.rfind('\n'); newline != text.npos)
    text.remove_prefix(newline + 1);
  constexpr std::string_view kProgram = "underlay-nbd: ";
  if (text.starts_with(kProgram)) text.remove_prefix(kProgram.size());
  return printable(text);
}

// Under systemd a process belongs to the service or session that started it, and ends with it, and
// at shutdown before the file systems on it are unmounted. A scope of its own has neither.
bool is_systemd_running() { return ::access("/run/systemd/system", F_OK) == 0; }

std::vector<std::string> in_scope(const std::vector<std::string>& command,
                                  const std::string& location, bool as_service_user) {
  std::vector<std::string> wrapped{"systemd-run",
                                   "--scope",
                                   "--quiet",
                                   "--collect",
                                   "--property=DefaultDependencies=no",
                                   fmt::format("--description=underlay-nbd {}", location)};
  if (as_service_user) {
    wrapped.push_back(fmt::format("--uid={}", kServiceUser));
    wrapped.push_back(fmt::format("--gid={}", kServiceUser));
  }
  wrapped.emplace_back("--");
  wrapped.insert(wrapped.end(), command.begin(), command.end());
  return wrapped;
}

enum class Stage : int { kPrepare, kGroups, kUser, kExec };

struct ChildFailure {
  Stage stage = Stage::kPrepare;
  int error = 0;
};

struct Child {
  pid_t pid = 0;
  UniqueFd pidfd;
};

// Everything that the child needs, made before the fork.
struct ChildPlan {
  std::vector<char*> arguments;
  std::vector<char*> environment;
  std::optional<ServiceUser> user;
  bool in_scope = false;  // systemd-run becomes the user, after it has made the scope
  int log = -1;
  int null = -1;
  int report = -1;  // a pipe that exec closes
};

void default_signals() {
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

ChildFailure become_server(const ChildPlan& plan) {
  const auto failed = [](Stage stage) { return ChildFailure{.stage = stage, .error = errno}; };
  default_signals();
  ::umask(077);
  if (::setsid() < 0 || ::chdir("/") != 0 || ::dup2(plan.null, STDIN_FILENO) < 0 ||
      ::dup2(plan.log, STDOUT_FILENO) < 0 || ::dup2(plan.log, STDERR_FILENO) < 0 ||
      ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    return failed(Stage::kPrepare);
  }
  if (plan.user && ::setgroups(plan.user->groups.size(), plan.user->groups.data()) != 0) {
    return failed(Stage::kGroups);
  }
  if (plan.user && !plan.in_scope &&
      (::setgid(plan.user->gid) != 0 || ::setuid(plan.user->uid) != 0)) {
    return failed(Stage::kUser);
  }
  ::execvpe(plan.arguments.front(), plan.arguments.data(), plan.environment.data());
  return failed(Stage::kExec);
}

Failure child_failure(const ChildFailure& what, const std::string& program) {
  switch (what.stage) {
    case Stage::kPrepare:
      return fail_errno(what.error, "cannot prepare the server's process");
    case Stage::kGroups:
    case Stage::kUser:
      return fail_errno(what.error, "cannot become the user {}", kServiceUser);
    case Stage::kExec:
      break;
  }
  return fail_errno(what.error, "cannot run '{}' (name the server with --server)", program);
}

// Forks and execs; returns when the exec has been done.
Result<Child> spawn(std::vector<std::string> command, const std::optional<ServiceUser>& user,
                    bool scope, int log) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe");
  const UniqueFd heard(ends[0]);
  UniqueFd report(ends[1]);
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null.valid()) return fail_errno(errno, "cannot open /dev/null");
  ChildPlan plan{.arguments = {},
                 .environment = {},
                 .user = user,
                 .in_scope = scope,
                 .log = log,
                 .null = null.get(),
                 .report = report.get()};
  for (std::string& word : command) plan.arguments.push_back(word.data());
  plan.arguments.push_back(nullptr);
  // As a login has it; systemd-run sees to it itself.
  std::string home = "HOME=" + (user ? user->home : std::string());
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const bool is_home = std::string_view(*variable).starts_with("HOME=");
    if (!user || scope || !is_home) plan.environment.push_back(*variable);
  }
  if (user && !scope) plan.environment.push_back(home.data());
  plan.environment.push_back(nullptr);

  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot fork");
  if (pid == 0) {
    const ChildFailure failure = become_server(plan);
    (void)!::write(plan.report, &failure, sizeof(failure));
    ::_exit(127);
  }
  report.reset();
  ChildFailure failure;
  ssize_t got = 0;
  do {
    got = ::read(heard.get(), &failure, sizeof(failure));
  } while (got < 0 && errno == EINTR);
  Child child{.pid = pid, .pidfd = UniqueFd(::pidfd_open(pid, 0))};
  if (got == 0 && child.pidfd.valid()) return child;
  const int error = errno;
  ::kill(pid, SIGKILL);
  wait_for_end(pid);
  if (got == sizeof(failure)) return child_failure(failure, command.front());
  return fail_errno(error, "cannot watch the server's start");
}

std::string how_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

Failure ended_early(int status, const std::string& line) {
  if (!line.empty()) return fail(ErrorKind::kIo, "the server did not start: {}", line);
  return fail(ErrorKind::kIo, "the server {} at start without a word", how_ended(status));
}

}  // namespace

Result<pid_t> start_server(const Host& host, const ImageRecord& image, StartMode mode) {
  if (mode != StartMode::kTakeOver) TRY(clear_server(host, image.id, StartMode::kBeside));
  if (mode == StartMode::kAlone) {
    if (const auto running = TRY(running_server(host, image.id))) return *running;
    TRY(clear_server(host, image.id, mode));
  }
  const ServerFiles files = server_files(host, image.id, mode);
  const auto user = TRY(service_user());
  TRY(make_folder(files.folder, user));
  Host served = host;
  if (image.has_objects() && !host.cache_dir.empty() && !has_cache_folder(host.cache_dir, user)) {
    served.cache_dir.clear();
  }
  const UniqueFd log = TRY(open_log(files.log, user));
  const off_t log_start = ::lseek(log.get(), 0, SEEK_END);
  const bool scope = is_systemd_running() && ::geteuid() == 0;
  auto command = server_command(served, image, mode);
  if (scope) command = in_scope(command, image.location, user.has_value());
  const Child child = TRY(spawn(std::move(command), user, scope, log.get()));

  const auto deadline = Clock::now() + kStartLimit;
  while (!has_ended(child.pidfd.get(), kLookAgain)) {
    const auto found = open_server(host, image.id, mode);
    if (found && *found && (*found)->pid == child.pid) {
      // Who takes over goes on with what the other one served.
      const auto unchanged = mode == StartMode::kTakeOver ? Result<void>() : check_objects(image);
      if (unchanged) return child.pid;
      ::pidfd_send_signal(child.pidfd.get(), SIGKILL, nullptr, 0);
      wait_for_end(child.pid);
      return Failure(unchanged.error());
    }
    if (found && !interrupted() && Clock::now() < deadline) continue;
    ::pidfd_send_signal(child.pidfd.get(), SIGKILL, nullptr, 0);
    wait_for_end(child.pid);
    if (!found) return Failure(found.error());
    if (interrupted()) return fail(ErrorKind::kUsage, "interrupted while the server started");
    return fail(ErrorKind::kIo, "the server did not listen within {} s; it said last: '{}'",
                kStartLimit.count(), last_line(log.get(), log_start));
  }
  return ended_early(wait_for_end(child.pid), last_line(log.get(), log_start));
}

}  // namespace underlay::thin
