// The commands of the control socket, by which server and client check what they are given.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace underlay {

struct ControlArgument {
  enum class Kind : uint8_t { kText, kFlag };
  std::string_view name;
  Kind kind = Kind::kText;
  bool required = false;
};

struct ControlCommand {
  std::string_view name;
  std::span<const ControlArgument> arguments = {};
};

inline constexpr std::array kAddArguments = {
    ControlArgument{.name = "name", .required = true},
    ControlArgument{.name = "image", .required = true},
    ControlArgument{.name = "format"},
    ControlArgument{.name = "snapshot"},
    ControlArgument{.name = "description"},
};
inline constexpr std::array kRemoveArguments = {
    ControlArgument{.name = "name", .required = true},
    ControlArgument{.name = "hide", .kind = ControlArgument::Kind::kFlag},
};
inline constexpr std::array kLogLevelArguments = {
    ControlArgument{.name = "level", .required = true},
};
inline constexpr std::array kCacheArguments = {
    ControlArgument{.name = "trim"},
};
inline constexpr std::array kControlCommands = {
    ControlCommand{.name = "exports"},
    ControlCommand{.name = "clients"},
    ControlCommand{.name = "add", .arguments = kAddArguments},
    ControlCommand{.name = "remove", .arguments = kRemoveArguments},
    ControlCommand{.name = "drain"},
    ControlCommand{.name = "reload"},
    ControlCommand{.name = "status"},
    ControlCommand{.name = "statistics"},
    ControlCommand{.name = "cache", .arguments = kCacheArguments},
    ControlCommand{.name = "log-level", .arguments = kLogLevelArguments},
};

// Null when there is none of that name.
inline const ControlCommand* find_control_command(std::string_view name) {
  for (const ControlCommand& command : kControlCommands) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

inline const ControlArgument* find_argument(const ControlCommand& command, std::string_view name) {
  for (const ControlArgument& argument : command.arguments) {
    if (argument.name == name) return &argument;
  }
  return nullptr;
}

}  // namespace underlay
