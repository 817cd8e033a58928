#include <doctest/doctest.h>

#include "tools/common/text.h"
#include "tools/thin/command_line.h"
#include "tools/thin/command_table.h"

namespace underlay::thin {
namespace {

using Words = std::vector<std::string>;

std::string refused(const Words& words) {
  const auto line = parse_command_line(words);
  REQUIRE_FALSE(line);
  CHECK(line.error().kind == ErrorKind::kUsage);
  return line.error().message;
}

TEST_CASE("thin command line: options of all commands may stand anywhere") {
  for (const Words& words : {Words{"--json", "--state-dir", "/s", "status", "vm", "-v"},
                             Words{"status", "--state-dir=/s", "--json", "vm", "--verbose"},
                             Words{"status", "vm", "--json", "-v", "--state-dir", "/s"}}) {
    const auto line = parse_command_line(words);
    REQUIRE(line);
    CHECK(line->run);
    CHECK(line->host.json);
    CHECK(line->host.verbose);
    CHECK_FALSE(line->host.dry_run);
    CHECK(line->host.state_dir == "/s");
  }
}

TEST_CASE("thin command line: help needs neither operands nor options, and names every command") {
  const auto all = parse_command_line({"--help"});
  REQUIRE(all);
  CHECK_FALSE(all->run);
  for (const Command& command : commands()) {
    const std::string words = fmt::format("  {} {}", command.name, command.operands);
    CAPTURE(words);
    CHECK(all->text.find(words) != std::string::npos);
    const auto its = parse_command_line({std::string(command.name), "--help"});
    CHECK(its);
  }
  const auto create = parse_command_line({"create", "--help"});
  REQUIRE(create);
  CHECK(create->text.find("--dead-timeout") != std::string::npos);
  CHECK(parse_command_line({"-V"})->text == "underlay-thin 0.1.0\n");
}

TEST_CASE("thin command line: what is no valid use is told before anything is done") {
  CHECK(refused({}) == "a command is missing");
  CHECK(refused({"frob"}) == "unknown command 'frob'");
  CHECK(refused({"status"}) == "usage: underlay-thin status NAME");
  CHECK(refused({"snapshot", "a", "b", "c"}) == "usage: underlay-thin snapshot NAME NEW");
  refused({"activate"});
  refused({"activate", "vm", "--all"});
  refused({"create", "vm", "--image", "i"});
  refused({"create", "vm", "--image", "i", "--pool", "p", "--size", "1X"});
  refused({"create", "vm", "--image", "i", "--pool", "p", "--direct", "often"});
  refused({"create", "vm", "--image", "i", "--pool", "p", "--connections", "-1"});
  refused({"create", "vm", "--im", "i", "--pool", "p"});
  CHECK(parse_command_line({"create", "vm", "--image", "i", "--pool", "p", "--size", "1G"}));
}

TEST_CASE("thin text: sizes are read with their suffixes and printed short") {
  CHECK(parse_size("512", "--size").value() == 512);
  CHECK(parse_size("64k", "--size").value() == 65536);
  CHECK(parse_size("20G", "--size").value() == uint64_t{20} << 30);
  CHECK(parse_size("16777215T", "--size").value() == uint64_t{16777215} << 40);
  for (const char* text : {"", "G", "1GB", "-1", "1.5G", "16777216T", "99999999999999999999"}) {
    CHECK_FALSE(parse_size(text, "--size"));
  }
  CHECK(human_size(0) == "0B");
  CHECK(human_size(1023) == "1023B");
  CHECK(human_size(1536) == "1.5K");
  CHECK(human_size(uint64_t{20} << 30) == "20G");
}

TEST_CASE("thin text: columns are as wide as their widest cell") {
  CHECK(aligned({{"A", "B"}, {"long", "x"}}) == "A     B\nlong  x\n");
}

}  // namespace
}  // namespace underlay::thin
