#include "server/option_rules.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <sstream>

namespace underlay {
namespace {

namespace po = boost::program_options;

constexpr std::string_view kReadOnlyServer = "asks for writing: underlay-nbd is read-only";
constexpr std::string_view kNotYet = "is not supported yet";

// A field that a line leaves out keeps its default: no letter, no value, the last one counts.
constexpr std::array kRules = {
    OptionRule{.name = "help", .letter = 'h'},
    OptionRule{.name = "version", .letter = 'V'},
    OptionRule{.name = "help-limits", .own = true},
    OptionRule{.name = "port", .letter = 'p', .takes_value = true},
    OptionRule{.name = "bind", .letter = 'b', .takes_value = true},
    OptionRule{.name = "socket", .letter = 'k', .takes_value = true},
    OptionRule{.name = "shared", .letter = 'e', .takes_value = true},
    OptionRule{.name = "persistent", .letter = 't'},
    OptionRule{.name = "verbose", .letter = 'v'},
    OptionRule{.name = "export-name", .letter = 'x', .takes_value = true},
    OptionRule{.name = "description", .letter = 'D', .takes_value = true},
    OptionRule{.name = "offset", .letter = 'o', .takes_value = true},
    OptionRule{.name = "allocation-depth", .letter = 'A'},
    OptionRule{.name = "bitmap", .letter = 'B', .takes_value = true, .repeat = Repeat::kEach},
    OptionRule{.name = "list", .letter = 'L'},
    OptionRule{.name = "connect", .letter = 'c', .takes_value = true},
    OptionRule{.name = "disconnect", .letter = 'd'},
    OptionRule{.name = "fork"},
    OptionRule{.name = "pid-file", .takes_value = true},
    OptionRule{.name = "format", .letter = 'f', .takes_value = true},
    OptionRule{.name = "read-only", .letter = 'r'},
    OptionRule{.name = "load-snapshot", .letter = 'l', .takes_value = true},
    OptionRule{.name = "nocache", .letter = 'n', .repeat = Repeat::kOnce},
    OptionRule{.name = "cache", .takes_value = true, .repeat = Repeat::kOnce},
    OptionRule{.name = "aio", .takes_value = true, .repeat = Repeat::kOnce},
    OptionRule{.name = "discard", .takes_value = true, .repeat = Repeat::kOnce},
    OptionRule{.name = "detect-zeroes", .takes_value = true},
    OptionRule{.name = "image-opts"},
    OptionRule{.name = "object", .takes_value = true, .repeat = Repeat::kEach},

    OptionRule{.name = "tls-creds", .takes_value = true},
    OptionRule{.name = "tls-authz", .takes_value = true},
    OptionRule{.name = "tls", .takes_value = true, .own = true},

    OptionRule{.name = "export", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "export-rule", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "directory", .takes_value = true, .own = true},
    OptionRule{.name = "allow-path", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "force-share", .letter = 'U', .own = true},
    OptionRule{.name = "parent", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "reader", .takes_value = true, .own = true},
    OptionRule{.name = "config", .takes_value = true, .repeat = Repeat::kOnce, .own = true},
    OptionRule{.name = "cache-dir", .takes_value = true, .own = true},
    OptionRule{.name = "cache-size", .takes_value = true, .own = true},
    OptionRule{
        .name = "cache-immutable", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "prefetch", .takes_value = true, .own = true},
    OptionRule{.name = "prefetch-rate", .takes_value = true, .own = true},
    OptionRule{.name = "cluster-cache", .takes_value = true, .own = true},
    OptionRule{.name = "table-cache", .takes_value = true, .own = true},
    OptionRule{.name = "threads", .takes_value = true, .own = true},
    OptionRule{.name = "poll", .takes_value = true, .own = true},
    OptionRule{.name = "on-error", .takes_value = true, .own = true},
    OptionRule{.name = "log", .takes_value = true, .own = true},
    OptionRule{.name = "metrics", .takes_value = true, .own = true},
    OptionRule{.name = "slow-requests", .takes_value = true, .own = true},
    OptionRule{.name = "user", .takes_value = true, .own = true},
    OptionRule{.name = "sandbox", .takes_value = true, .own = true},
    OptionRule{.name = "sandbox-test", .own = true},
    OptionRule{.name = "peer-user", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "peer-group", .takes_value = true, .repeat = Repeat::kEach, .own = true},
    OptionRule{.name = "control", .takes_value = true, .own = true},
    OptionRule{.name = "handover", .takes_value = true, .own = true},
    OptionRule{.name = "take-over", .takes_value = true, .own = true},

    OptionRule{.name = "snapshot", .letter = 's', .refusal = kReadOnlyServer},
    OptionRule{.name = "partition",
               .letter = 'P',
               .takes_value = true,
               .refusal = "is not supported, nor by today's qemu-nbd: say -o OFFSET"},
    OptionRule{.name = "tls-hostname",
               .takes_value = true,
               .refusal = "is not supported: with -L, the server's certificate must have the name "
                          "that -b says"},
    OptionRule{.name = "trace",
               .letter = 'T',
               .takes_value = true,
               .refusal = "is not supported: there are no trace points; -v says more"},
    OptionRule{.name = "selinux-label", .takes_value = true, .refusal = kNotYet},
};

constexpr std::string_view kFile = "FILE";  // what Boost calls the words that are no options

// Every value is text here: what it means is checked where it is used, with a better message.
po::options_description describe() {
  po::options_description description;
  const auto add = [&](std::string_view name, bool each) {
    auto* value = po::value<std::vector<std::string>>();
    if (each) value->composing();
    description.add_options()(std::string(name).c_str(), value);
  };
  for (const OptionRule& rule : kRules) add(rule.name, rule.repeat == Repeat::kEach);
  add(kFile, true);
  return description;
}

const OptionRule* find_rule(std::string_view name) {
  const auto found = std::find_if(kRules.begin(), kRules.end(),
                                  [&](const OptionRule& rule) { return rule.name == name; });
  return found == kRules.end() ? nullptr : &*found;
}

// -n is --cache=none by another name.
Result<void> resolve_nocache(std::vector<po::option>& options) {
  size_t count = 0;
  for (po::option& option : options) {
    const bool nocache = option.string_key == "nocache";
    if (!nocache && option.string_key != "cache") continue;
    if (++count > 1) return fail(ErrorKind::kUsage, "-n and --cache can only be specified once");
    if (!nocache) continue;
    option.string_key = "cache";
    option.value = {option.value.back() == kOn ? "none" : "writeback"};
  }
  return {};
}

Result<void> check_repeats(const std::vector<po::option>& options) {
  for (const OptionRule& rule : kRules) {
    const auto count = std::count_if(options.begin(), options.end(), [&](const auto& option) {
      return option.string_key == rule.name;
    });
    if (rule.repeat == Repeat::kOnce && count > 1) {
      return fail(ErrorKind::kUsage, "--{} can only be specified once", rule.name);
    }
  }
  return {};
}

Result<po::parsed_options> read_words(const std::vector<std::string>& arguments,
                                      const po::options_description& description) {
  po::positional_options_description files;
  files.add(std::string(kFile).c_str(), -1);
  const auto style = [](std::vector<std::string>& words) { return take_option(kRules, words); };
  po::parsed_options parsed = po::command_line_parser(arguments)
                                  .options(description)
                                  .positional(files)
                                  .extra_style_parser(style)
                                  .run();
  TRY(resolve_nocache(parsed.options));
  TRY(check_repeats(parsed.options));
  return parsed;
}

// One line of a configuration file; appends what it gives to `options`.
Result<void> read_config_line(const std::string& line, const po::options_description& description,
                              std::vector<po::option>& options) {
  // Boost would take a section's name for the start of the option names below it.
  if (line.find_first_not_of(" \t") != std::string::npos &&
      line[line.find_first_not_of(" \t")] == '[') {
    return fail(ErrorKind::kUsage, "there are no sections: write OPTION = VALUE");
  }
  std::istringstream text(line);
  for (po::option& option : po::parse_config_file(text, description).options) {
    const OptionRule* rule = find_rule(option.string_key);
    if (rule == nullptr || rule->name == "help" || rule->name == "version" ||
        rule->name == "help-limits" || rule->name == "config" || rule->name == "sandbox-test") {
      return fail(ErrorKind::kUsage, "\"{}\" has no place in a configuration file",
                  printable(option.string_key, 80));
    }
    const std::string& value = option.value.back();
    if (!rule->takes_value && value != kOn && value != "off") {
      return fail(ErrorKind::kUsage, "{}: \"{}\" is neither on nor off", rule->name,
                  printable(value, 80));
    }
    options.push_back(std::move(option));
  }
  return {};
}

Result<po::parsed_options> read_config(const std::string& path,
                                       const po::options_description& description) {
  std::ifstream file(path);
  if (!file) return in_file(fail_errno(errno, "--config: cannot open"), path);
  po::parsed_options parsed(&description);
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    try {
      if (auto read = read_config_line(line, description, parsed.options); !read) {
        return in_file(with_context(std::move(read).error(), fmt::format("line {}: ", number)),
                       path);
      }
    } catch (const po::error& error) {
      return in_file(fail(ErrorKind::kUsage, "line {}: {}", number, error.what()), path);
    }
  }
  if (file.bad()) return in_file(fail_errno(errno, "--config: cannot read"), path);
  if (auto resolved = resolve_nocache(parsed.options); !resolved) {
    return in_file(std::move(resolved).error(), path);
  }
  if (auto once = check_repeats(parsed.options); !once) {
    return in_file(std::move(once).error(), path);
  }
  return parsed;
}

// -k hides -b and -p, so an address of the command line must not meet one of the other kind from
// the configuration file.
void drop_hidden_address(const po::variables_map& command_line, po::parsed_options& config) {
  const bool socket = command_line.count("socket") != 0;
  const bool tcp = command_line.count("bind") != 0 || command_line.count("port") != 0;
  std::erase_if(config.options, [&](const po::option& option) {
    const std::string& key = option.string_key;
    return (socket && (key == "bind" || key == "port")) || (tcp && key == "socket");
  });
}

}  // namespace

std::span<const OptionRule> option_rules() { return kRules; }

Result<GivenOptions> GivenOptions::read(const std::vector<std::string>& arguments) {
  const po::options_description description = describe();
  GivenOptions given;
  try {
    po::store(TRY(read_words(arguments, description)), given.values_);
    if (given.has("config") && !given.has("help") && !given.has("version")) {
      po::parsed_options config = TRY(read_config(given.last("config"), description));
      drop_hidden_address(given.values_, config);
      po::store(config, given.values_);
    }
  } catch (const po::error& error) {
    return fail(ErrorKind::kUsage, "{}", error.what());
  }
  given.files_ = given.each(kFile);
  return given;
}

const std::vector<std::string>& GivenOptions::all(std::string_view name) const {
  return values_[std::string(name)].as<std::vector<std::string>>();
}

std::string GivenOptions::last_or(std::string_view name, std::string_view otherwise) const {
  return has(name) ? last(name) : std::string(otherwise);
}

std::vector<std::string> GivenOptions::each(std::string_view name) const {
  return has(name) ? all(name) : std::vector<std::string>();
}

std::vector<std::string> GivenOptions::differences(const GivenOptions& other) const {
  std::vector<std::string> names;
  for (const OptionRule& rule : kRules) {
    if (each(rule.name) != other.each(rule.name)) names.emplace_back(rule.name);
  }
  return names;
}

}  // namespace underlay
