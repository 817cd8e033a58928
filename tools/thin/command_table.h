// The commands of underlay-thin. One entry for each.
#pragma once

#include <span>
#include <string_view>

#include "tools/thin/command_options.h"

namespace underlay::thin {

struct Command {
  std::string_view name;      // "pool create"
  std::string_view operands;  // "NAME", "NAME NEW", "[NAME]", "": a word for each
  std::string_view help;      // one line
  // Adds the command's options to those that all have; null: it has none.
  void (*declare)(OptionList& options);
  // What is to be run for these operands, which are as many as the command takes, and options;
  // fails when they are no valid use.
  Result<CommandRun> (*prepare)(const Operands& operands, const CommandOptions& options);
};

std::span<const Command> commands();

}  // namespace underlay::thin
