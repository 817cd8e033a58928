// underlay-thin: puts disk images under device-mapper thin volumes.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include "tools/thin/command_line.h"
#include "tools/thin/steps.h"

namespace underlay::thin {
namespace {

constexpr const char* kProgram = "underlay-thin";
constexpr int kFailed = 1;
constexpr int kUsageError = 2;

void say(const std::string& line) { fmt::print(stderr, "{}: {}\n", kProgram, line); }

// Standard descriptors that a caller has closed must not become a device's.
void fill_standard_descriptors() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) fd = ::open("/dev/null", O_RDWR);
  if (fd > STDERR_FILENO) ::close(fd);
}

int run(const std::vector<std::string>& arguments) {
  const auto line = parse_command_line(arguments);
  if (!line) {
    say(line.error().to_string());
    say(fmt::format("try '{} --help' for more information", kProgram));
    return kUsageError;
  }
  if (!line->run) {
    fmt::print("{}", line->text);
    return std::fflush(stdout) == 0 ? 0 : kFailed;
  }
  if (::geteuid() != 0) {
    say("needs root: it talks to device-mapper and to the kernel's nbd");
    return kFailed;
  }
  hold_signals();
  const auto done = line->run(line->host);
  if (done && line->host.dry_run) print_plan(line->host);
  if (std::fflush(stdout) != 0) {
    say("standard output cannot be written");
    return kFailed;
  }
  if (done) return 0;
  say(done.error().to_string());
  return kFailed;
}

}  // namespace
}  // namespace underlay::thin

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  underlay::thin::fill_standard_descriptors();
  try {
    return underlay::thin::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    underlay::thin::say(error.what());
    return underlay::thin::kFailed;
  }
}
