// Every option of underlay-nbd, and what its command line and configuration file say together.
#pragma once

#include <boost/program_options.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/options/option_words.h"
#include "io/error.h"

namespace underlay {

std::span<const OptionRule> option_rules();

// The options that were given, by their long names. The command line wins over the configuration
// file; options with Repeat::kEach add up.
class GivenOptions {
 public:
  // Reads the words of a command line (without the program's name), and the file that --config
  // names unless help or version is asked for. Fails with kUsage for what is no option, or an
  // option that stands there once too often.
  static Result<GivenOptions> read(const std::vector<std::string>& arguments);

  bool has(std::string_view name) const { return values_.count(std::string(name)) != 0; }
  // The value that counts. REQUIRES: has(name).
  const std::string& last(std::string_view name) const { return all(name).back(); }
  std::string last_or(std::string_view name, std::string_view otherwise) const;
  // All values in order, none when the option was not given.
  std::vector<std::string> each(std::string_view name) const;
  // An option without a value; a configuration file may switch it off.
  bool flag(std::string_view name) const { return has(name) && last(name) == kOn; }
  const std::vector<std::string>& files() const { return files_; }  // FILE
  // The options that are not what they are in `other`, by their long names.
  std::vector<std::string> differences(const GivenOptions& other) const;

 private:
  const std::vector<std::string>& all(std::string_view name) const;

  boost::program_options::variables_map values_;
  std::vector<std::string> files_;
};

}  // namespace underlay
