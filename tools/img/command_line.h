// The command line of underlay-img: which subcommand, with which options.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "tools/img/command.h"

namespace underlay::img {

struct CommandLine {
  const Command* command = nullptr;  // null: print `text` and be done (--help, --version)
  Given given;
  std::string text;
};

// The subcommand that `arguments` (without the program's name) begin with; null when there is none.
const Command* find_command(const std::vector<std::string>& arguments);

// Parses `arguments` as getopt_long(3) does for qemu-img. kUsage for everything that is no valid
// use.
Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments);

}  // namespace underlay::img
