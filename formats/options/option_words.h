// The words of a command line, split into options as getopt_long(3) splits them: scripts call
// qemu-nbd through it. Boost.Program_options takes it as its style parser; what Boost's own styles
// do differently: an empty value (--export-name=), a value that starts with '-', abbreviations.
#pragma once

#include <boost/program_options.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace underlay {

enum class Repeat : uint8_t {
  kLast,  // the last one counts
  kOnce,  // a second one is an error
  kEach,  // every one counts; those of the configuration file as well
};

struct OptionRule {
  std::string_view name;  // long form
  char letter = 0;        // short form, 0 = none
  bool takes_value = false;
  Repeat repeat = Repeat::kLast;
  bool own = false;  // not one of qemu-nbd's: never abbreviated, so that its stay unique
  std::string_view refusal = {};  // why it is not served, "" when it is
};

inline constexpr std::string_view kOn = "on";  // the value of an option that takes none

// Takes the option at the front of `words`, with its value, off `words`: one option, or several
// for combined letters (-rt). Empty when no option stands there ("FILE", "-", "--"). Throws
// po::error (which Boost hands on) for what is no option.
std::vector<boost::program_options::option> take_option(std::span<const OptionRule> rules,
                                                        std::vector<std::string>& words);

}  // namespace underlay
