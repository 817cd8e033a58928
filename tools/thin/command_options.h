// What the commands' options have in common: how they are read from the command line.
#pragma once

#include <boost/program_options.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

using Operands = std::vector<std::string>;
using CommandOptions = boost::program_options::variables_map;
using OptionList = boost::program_options::options_description;

// What is to be run once the command line has been read.
using CommandRun = std::function<Result<void>(const Host&)>;

template <class Arguments>
CommandRun bind(Result<void> (*command)(const Host&, const Arguments&), Arguments arguments) {
  return [command, arguments = std::move(arguments)](const Host& host) {
    return command(host, arguments);
  };
}

// "" when the option was not given.
std::string text_of(const CommandOptions& options, const char* name);
// Bytes, as parse_size() takes them.
Result<std::optional<uint64_t>> size_of(const CommandOptions& options, const char* name);
// A whole number from 0 to 4294967295. The option is declared as a string.
Result<std::optional<unsigned>> number_of(const CommandOptions& options, const char* name);

// An option with a value, as a string; for `--help`, VALUE_NAME.
boost::program_options::typed_value<std::string>* value(const char* value_name);

}  // namespace underlay::thin
