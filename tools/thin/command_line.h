// The command line of underlay-thin: which command, with which arguments.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

struct CommandLine {
  Host host;
  std::function<Result<void>(const Host&)>
      run;  // empty: print `text` and be done (--help, --version)
  std::string text;
};

// Parses `arguments` (without the program's name). kUsage for everything that is no valid use.
Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments);

}  // namespace underlay::thin
