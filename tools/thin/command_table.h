// The commands of underlay-thin: their words, options and what runs them. One entry for each.
#pragma once

#include <boost/program_options.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

using CommandOptions = boost::program_options::variables_map;

using CommandRun = std::function<Result<void>(const Host&)>;

struct Command {
  std::string_view name;      // "pool create"
  std::string_view operands;  // "NAME", "NAME NEW", "[NAME]", "": a word for each
  std::string_view help;      // one line
  // Adds the command's options to those that all have; null: it has none.
  void (*declare)(boost::program_options::options_description&);
  // What is to be run for these operands, which are as many as the command takes, and options;
  // fails when they are no valid use.
  Result<CommandRun> (*prepare)(const std::vector<std::string>& operands,
                                const CommandOptions& options);
};

std::span<const Command> commands();

}  // namespace underlay::thin
