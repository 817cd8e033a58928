#include "tools/thin/run_program.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <optional>

#include "io/unique_fd.h"
#include "tools/thin/pidfd.h"
#include "tools/thin/steps.h"

namespace underlay::thin {
namespace {

constexpr size_t kMaxErrorText = 1024;

struct Pipe {
  UniqueFd read, write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "making a pipe");
  return Pipe{.read = UniqueFd(ends[0]), .write = UniqueFd(ends[1])};
}

// A started program. It is ended and waited for when this object goes without wait().
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&&) = delete;
  ~Child() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }

  void ask_to_end() const { ::kill(pid_, SIGTERM); }

  // waitpid's status.
  int wait() { return wait_for_end(std::exchange(pid_, -1)); }

 private:
  pid_t pid_;
};

Result<Child> spawn(const std::vector<std::string>& arguments, int output, int error) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, error, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = -1;
  int code = ::posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  // A PATH that comes from an ordinary user's shell lacks the folder of root's programs.
  if (code == ENOENT && arguments[0].find('/') == std::string::npos) {
    const std::string path = "/usr/sbin/" + arguments[0];
    code = ::posix_spawn(&pid, path.c_str(), &files, &attributes, argv.data(), environ);
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (code != 0) return fail_errno(code, "cannot run {} (is it installed?)", arguments[0]);
  return Child(pid);
}

// Reads both pipes until the program has closed them. `look` is called now and then.
Result<void> read_all(int output, int error, const OutputSink& sink, const OutputSink& errors,
                      const std::function<void()>& look) {
  constexpr int kLook = 100;  // ms
  std::array<pollfd, 2> open{pollfd{.fd = output, .events = POLLIN, .revents = 0},
                             pollfd{.fd = error, .events = POLLIN, .revents = 0}};
  std::array<char, 65536> buffer;
  while (open[0].fd >= 0 || open[1].fd >= 0) {
    if (look) look();
    if (::poll(open.data(), open.size(), look ? kLook : -1) < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "waiting for a program's output");
    }
    for (pollfd& one : open) {
      if (one.fd < 0 || one.revents == 0) continue;
      const ssize_t got = ::read(one.fd, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail_errno(errno, "reading a program's output");
      const std::string_view text(buffer.data(), static_cast<size_t>(got));
      if (got == 0) {
        one.fd = -1;
      } else if (one.fd == output) {
        TRY(sink(text));
      } else {
        TRY(errors(text));
      }
    }
  }
  return {};
}

std::string one_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return printable(text);
}

// Text of which no more than a message needs is kept.
void keep(std::string& kept, std::string_view text) {
  kept += text.substr(0, kMaxErrorText - std::min(kMaxErrorText, kept.size()));
}

// Standard error of a program that shows progress: lines, and what a terminal draws over.
class ProgressText {
 public:
  explicit ProgressText(const std::string& program)
      : prefix_(program.substr(program.rfind('/') + 1) + ": ") {}

  void add(std::string_view text) {
    for (const char letter : text) {
      if (line_.size() < kMaxErrorText) line_ += letter;
      if (letter == '\n' || letter == '\r') end_line();
    }
    // Not the beginning of an error: it is to be seen now.
    if (!std::string_view(prefix_).starts_with(std::string_view(line_).substr(0, prefix_.size()))) {
      show();
    }
  }
  void end() { end_line(); }
  const std::string& error() const { return error_; }

 private:
  void end_line() {
    if (!line_.starts_with(prefix_)) return show();
    error_ = line_.substr(prefix_.size());
    line_.clear();
  }
  void show() {
    (void)!::write(STDERR_FILENO, line_.data(), line_.size());
    line_.clear();
  }

  std::string prefix_;
  std::string line_;   // that has not been shown
  std::string error_;  // the last one
};

struct Listeners {
  OutputSink output;
  OutputSink errors;
  std::function<std::string()> error_text;
  std::function<void(const Child& program)> look;  // empty: nobody looks
};

Result<void> run(const std::vector<std::string>& arguments, const Listeners& listeners) {
  Pipe output = TRY(make_pipe());
  Pipe error = TRY(make_pipe());
  Child child = TRY(spawn(arguments, output.write.get(), error.write.get()));
  output.write.reset();
  error.write.reset();
  std::function<void()> look;
  if (listeners.look) look = [&] { listeners.look(child); };
  TRY(read_all(output.read.get(), error.read.get(), listeners.output, listeners.errors, look));
  const int status = child.wait();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  const std::string end = WIFSIGNALED(status) ? fmt::format("died of signal {}", WTERMSIG(status))
                                              : fmt::format("failed ({})", WEXITSTATUS(status));
  return fail(ErrorKind::kIo, "{} {}: {}", arguments[0], end, one_line(listeners.error_text()));
}

}  // namespace

Result<void> run_program(const std::vector<std::string>& arguments, const OutputSink& sink) {
  std::string error;
  return run(arguments, {.output = sink,
                         .errors = [&](std::string_view text) -> Result<void> {
                           keep(error, text);
                           return {};
                         },
                         .error_text = [&] { return error; },
                         .look = {}});
}

Result<void> run_with_progress(const std::vector<std::string>& arguments) {
  ProgressText text(arguments[0]);
  bool told = false;
  const auto end_when_interrupted = [&](const Child& program) {
    if (told || !interrupted()) return;
    program.ask_to_end();
    told = true;
  };
  auto done = run(arguments, {.output = [](std::string_view) { return Result<void>(); },
                              .errors = [&](std::string_view part) -> Result<void> {
                                text.add(part);
                                return {};
                              },
                              .error_text =
                                  [&] {
                                    text.end();
                                    return text.error();
                                  },
                              .look = end_when_interrupted});
  if (!done && interrupted()) return fail(ErrorKind::kUsage, "interrupted");
  return done;
}

}  // namespace underlay::thin
