// underlay-img: looks into disk images, and converts them. One file for each subcommand;
// command_table.cc names them.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tools/common/interruption.h"
#include "tools/img/command_line.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

// A stream that is closed would be the next file that is opened, an image or its digests say, and
// what is printed end up there: it becomes one that gives nothing, and takes nothing.
void open_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) != -1) continue;
    // Descriptors are given out from the lowest on: this one is `stream`.
    (void)::open(stream == STDOUT_FILENO ? "/dev/full" : "/dev/null",
                 stream == STDIN_FILENO ? O_RDONLY : O_WRONLY);
  }
}

// What is printed is on its way, or `failed_status` is how the program ends.
int flushed(int status, int failed_status) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  say_error("standard output cannot be written");
  return status == kDone ? failed_status : status;
}

// What fmt throws when standard output cannot be written, and the standard library when there is no
// memory, becomes an Error.
Result<int> run_command(const Command& command, const Given& given) {
  try {
    return command.run(given);
  } catch (const std::exception& error) {
    return fail(ErrorKind::kIo, "{}", error.what());
  }
}

void say_unless_told(const Error& error) {
  if (is_interrupted() && error.sys_errno == EINTR) return;
  if (std::ferror(stdout) != 0) return;  // flushed() tells it
  say_error(error.to_string());
}

int run(const std::vector<std::string>& arguments) {
  const auto line = parse_command_line(arguments);
  if (!line) {
    const Command* const command = find_command(arguments);
    say_error(line.error().to_string());
    say_error(fmt::format("try 'underlay-img {}--help' for more information",
                          command == nullptr ? "" : fmt::format("{} ", command->name)));
    return command == nullptr ? kFailed : command->usage_status;
  }
  if (line->command == nullptr) {
    fmt::print("{}", line->text);
    return flushed(kDone, kFailed);
  }
  note_interruptions();
  const int error_status = line->command->error_status;
  const auto status = run_command(*line->command, line->given);
  if (!status) say_unless_told(status.error());
  const int ended = flushed(status ? *status : error_status, error_status);
  die_of_interruption();
  return ended;
}

}  // namespace
}  // namespace underlay::img

int main(int argc, char** argv) {
  underlay::img::open_closed_streams();
  std::signal(SIGPIPE, SIG_DFL);  // as qemu-img: `underlay-img map ... | head` ends quietly
  std::signal(SIGXFSZ, SIG_IGN);  // a file that must not grow any more is an error to be told
  try {
    return underlay::img::run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::exception& error) {
    underlay::img::say_error(error.what());
    return underlay::img::kFailed;
  }
}
