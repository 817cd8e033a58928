// Command lines of underlay-nbd, for tests of what they say.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "server/options.h"

namespace underlay::test {

using Words = std::vector<std::string>;

inline Options parsed(const Words& words) {
  const auto line = parse_command_line(words);
  REQUIRE_MESSAGE(line, (line ? std::string() : line.error().to_string()));
  CHECK(line->action == CommandLine::Action::kServe);
  return line->options;
}

inline void check_refused(const Words& words, ErrorKind kind, const std::string& part_of_message) {
  const auto line = parse_command_line(words);
  INFO(fmt::format("{}", fmt::join(words, " ")));
  REQUIRE_FALSE(line);
  const std::string message = line.error().to_string();
  CHECK(line.error().kind == kind);
  CHECK_MESSAGE(message.find(part_of_message) != std::string::npos, message);
  CHECK(message.find('\n') == std::string::npos);
}

}  // namespace underlay::test
