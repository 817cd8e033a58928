#include "server/daemon.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace underlay {
namespace {

constexpr char kReady = 'r';
constexpr int kTakeTries = 1000;  // one a millisecond

// The parent's part: ends the process with what became of the child. _exit(), because everything
// that would be flushed or destroyed belongs to the child now.
[[noreturn]] void exit_as_child(int notify, pid_t child) {
  char message = 0;
  ssize_t got = 0;
  do {
    got = ::read(notify, &message, 1);
  } while (got < 0 && errno == EINTR);
  if (got == 1 && message == kReady) ::_exit(EXIT_SUCCESS);

  int status = 0;
  pid_t ended = 0;
  do {
    ended = ::waitpid(child, &status, 0);
  } while (ended < 0 && errno == EINTR);
  if (ended == child && WIFEXITED(status)) ::_exit(WEXITSTATUS(status));
  if (ended == child && WIFSIGNALED(status)) {
    (void)::dprintf(STDERR_FILENO, "underlay-nbd: the server was killed by signal %d at start\n",
                    WTERMSIG(status));
  }
  ::_exit(EXIT_FAILURE);
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Is the open file still the one that the path names? Its last holder may have removed it.
bool still_names(const std::string& path, int fd) {
  struct stat by_path {};
  struct stat by_fd {};
  return ::stat(path.c_str(), &by_path) == 0 && ::fstat(fd, &by_fd) == 0 &&
         same_file(by_path, by_fd);
}

struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// False when `holder` has it locked.
Result<bool> lock_unless_held_by(int fd, pid_t holder) {
  struct flock lock = whole_file();
  if (::fcntl(fd, F_SETLK, &lock) == 0) return true;
  if (errno != EACCES && errno != EAGAIN) return fail_errno(errno, "cannot lock the pid file");
  if (::fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid == holder &&
      holder > 0) {
    return false;
  }
  return fail(ErrorKind::kUsage, "another process runs with this pid file");
}

struct OpenedPidFile {
  UniqueFd fd;
  bool locked = false;
};

Result<OpenedPidFile> open_unless_held_by(const std::string& path, pid_t holder) {
  while (true) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644));
    if (!fd.valid()) return fail_errno(errno, "cannot create the pid file");
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "cannot stat the pid file");
    if (!S_ISREG(status.st_mode)) {
      return fail(ErrorKind::kUsage, "--pid-file is no regular file, and would be removed at exit");
    }
    const bool locked = TRY(lock_unless_held_by(fd.get(), holder));
    if (still_names(path, fd.get())) return OpenedPidFile{std::move(fd), locked};
  }
}

Result<void> write_pid(int fd) {
  const std::string text = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd, 0) != 0) return fail_errno(errno, "cannot empty the pid file");
  const ssize_t put = ::pwrite(fd, text.data(), text.size(), 0);
  if (put < 0) return fail_errno(errno, "cannot write the pid file");
  if (static_cast<size_t>(put) != text.size()) {
    return fail_errno(ENOSPC, "cannot write the pid file");
  }
  return {};
}

}  // namespace

Result<Daemon> Daemon::fork_into_background() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "--fork: cannot make a pipe");
  UniqueFd wait(ends[0]);
  UniqueFd notify(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "--fork: cannot fork");
  if (child > 0) {
    notify.reset();
    exit_as_child(wait.get(), child);
  }
  if (::setsid() < 0) return fail_errno(errno, "--fork: cannot make a session");
  // Later, nothing may be opened any more.
  return Daemon(std::move(notify), UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)));
}

void Daemon::ready(bool keep_stderr) {
  if (null_.valid()) {
    ::dup2(null_.get(), STDIN_FILENO);
    ::dup2(null_.get(), STDOUT_FILENO);
    if (!keep_stderr) ::dup2(null_.get(), STDERR_FILENO);
  }
  // MSG_NOSIGNAL has no counterpart for pipes: a parent that was killed must not kill the server.
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  ssize_t put = 0;
  do {
    put = ::write(notify_.get(), &kReady, 1);
  } while (put < 0 && errno == EINTR);
  ::sigaction(SIGPIPE, &before, nullptr);
  notify_.reset();
}

Result<PidFile> PidFile::create(const std::string& path) {
  PidFile file = TRY(prepare(path, 0));
  TRY(file.take());
  return file;
}

Result<PidFile> PidFile::prepare(const std::string& path, pid_t predecessor) {
  auto opened = open_unless_held_by(path, predecessor);
  if (!opened) return in_file(std::move(opened).error(), path);
  return PidFile(std::move(opened->fd), path, opened->locked);
}

Result<void> PidFile::take() {
  // The predecessor lets go of it as soon as it has said that it does.
  for (int tries = 0; !locked_; ++tries) {
    const auto locked = lock_unless_held_by(fd_.get(), 0);
    locked_ = locked.has_value();
    if (!locked && tries == kTakeTries) return in_file(locked.error(), path_);
    if (!locked) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (auto written = write_pid(fd_.get()); !written) {
    return in_file(std::move(written).error(), path_);
  }
  return {};
}

FileIdentity PidFile::identity() const {
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) return {};
  return {status.st_dev, status.st_ino};
}

PidFile::~PidFile() {
  if (fd_.valid() && locked_ && still_names(path_, fd_.get())) ::unlink(path_.c_str());
}

}  // namespace underlay
