#include "tools/img/command_line.h"

#include <algorithm>
#include <sstream>

namespace underlay::img {
namespace {

namespace po = boost::program_options;

constexpr const char* kOperand = "FILE";  // what Boost calls the words that are no options

constexpr OptionRule kHelpRule{.name = "help", .letter = 'h'};
constexpr OptionRule kVersionRule{.name = "version", .letter = 'V'};

std::vector<Option> options_of(const Command& command) {
  std::vector<Option> options = command.options();
  options.push_back({.rule = kHelpRule, .help = "print this and exit"});
  return options;
}

// "  -f, --format FORMAT    help", the help's further lines below its first.
std::string option_help(const Option& option) {
  constexpr size_t kHelpColumn = 30;
  constexpr size_t kWidth = 100;
  std::string line = option.rule.letter != 0
                         ? fmt::format("  -{}, --{}", option.rule.letter, option.rule.name)
                         : fmt::format("      --{}", option.rule.name);
  if (!option.value_name.empty()) line += fmt::format(" {}", option.value_name);
  std::string text;
  if (line.size() + 2 > kHelpColumn) {
    text = line + '\n';
    line.clear();
  }
  std::istringstream words{std::string(option.help)};
  line.resize(kHelpColumn, ' ');
  for (std::string word; words >> word;) {
    if (line.size() + 1 + word.size() > kWidth) {
      text += line + '\n';
      line.assign(kHelpColumn, ' ');
    }
    line += (line.size() == kHelpColumn ? "" : " ") + word;
  }
  return text + line + '\n';
}

std::string command_help(const Command& command) {
  std::string text =
      fmt::format("Usage: underlay-img {} [OPTIONS]{}{}\n{}\n\nOptions:\n", command.name,
                  command.operands.empty() ? "" : " ", command.operands, command.summary);
  for (const Option& option : options_of(command)) text += option_help(option);
  if (!command.notes.empty()) text += fmt::format("\n{}", command.notes);
  return text;
}

std::string program_help() {
  std::string text =
      "Usage: underlay-img COMMAND [OPTIONS] ...\n"
      "Looks into disk images and converts them, and never writes to one that it reads.\n\n"
      "Commands:\n";
  for (const Command& command : commands()) {
    text += fmt::format("  {:<26}{}\n", fmt::format("{} {}", command.name, command.operands),
                        command.summary);
  }
  text += "\nOptions:\n";
  text += option_help({.rule = kHelpRule, .help = "print this and exit"});
  text += option_help({.rule = kVersionRule, .help = "print the version and exit"});
  text += "\nSee 'underlay-img COMMAND --help' for a command's options.\n";
  return text;
}

Result<void> check_repeats(const std::vector<Option>& options, const Given& given) {
  for (const Option& option : options) {
    if (option.rule.repeat == Repeat::kOnce && given.each(option.rule.name).size() > 1) {
      return fail(ErrorKind::kUsage, "--{} can only be specified once", option.rule.name);
    }
    if (!option.rule.refusal.empty() && given.has(option.rule.name)) {
      return fail(ErrorKind::kUnsupported, "--{} {}", option.rule.name, option.rule.refusal);
    }
  }
  return {};
}

Result<void> check_operands(const Command& command, const Given& given) {
  size_t least = 0;
  size_t most = 0;
  std::istringstream words{std::string(command.operands)};
  for (std::string word; words >> word; ++most) {
    if (!word.starts_with('[')) ++least;
  }
  const size_t count = given.operands().size();
  if (count >= least && count <= most) return {};
  return fail(ErrorKind::kUsage, "{} takes {}, not {} operand{}", command.name,
              command.operands.empty() ? "no operand" : command.operands, count,
              count == 1 ? "" : "s");
}

// Of a subcommand's words.
Result<Given> read_words(const std::vector<Option>& options,
                         const std::vector<std::string>& words) {
  std::vector<OptionRule> rules;
  po::options_description description;
  for (const Option& option : options) {
    rules.push_back(option.rule);
    description.add_options()(std::string(option.rule.name).c_str(),
                              po::value<std::vector<std::string>>());
  }
  description.add_options()(kOperand, po::value<std::vector<std::string>>());
  po::positional_options_description operands;
  operands.add(kOperand, -1);
  const auto style = [&](std::vector<std::string>& rest) { return take_option(rules, rest); };
  Given given;
  const auto parsed = po::command_line_parser(words)
                          .options(description)
                          .positional(operands)
                          .extra_style_parser(style)
                          .run();
  for (const po::option& option : parsed.options) {
    for (const std::string& value : option.value) {
      if (option.string_key == kOperand) {
        given.add_operand(value);
      } else {
        given.add(option.string_key, value);
      }
    }
  }
  return given;
}

Result<CommandLine> parse_program_words(const std::vector<std::string>& arguments) {
  const std::vector<Option> options = {{.rule = kHelpRule, .help = ""},
                                       {.rule = kVersionRule, .help = ""}};
  const Given given = TRY(read_words(options, arguments));
  CommandLine line;
  if (given.has("version")) {
    line.text = fmt::format("underlay-img {}\n", UNDERLAY_VERSION);
  } else if (given.has("help")) {
    line.text = program_help();
  } else {
    return fail(ErrorKind::kUsage, "a command is missing");
  }
  return line;
}

Result<CommandLine> parse(const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments[0].starts_with('-')) return parse_program_words(arguments);
  const Command* const command = find_command(arguments);
  if (command == nullptr) {
    return fail(ErrorKind::kUsage, "unknown command '{}'", printable(arguments[0], 80));
  }
  const std::vector<Option> options = options_of(*command);
  CommandLine line;
  line.given = TRY(read_words(options, {arguments.begin() + 1, arguments.end()}));
  if (line.given.has("help")) {
    line.text = command_help(*command);
    return line;
  }
  TRY(check_operands(*command, line.given));
  TRY(check_repeats(options, line.given));
  line.command = command;
  return line;
}

}  // namespace

std::vector<std::string> Given::each(std::string_view name) const {
  std::vector<std::string> values;
  for (const Value& option : options_) {
    if (option.name == name) values.push_back(option.value);
  }
  return values;
}

std::string Given::last(std::string_view name) const { return last_or(name, ""); }

std::string Given::last_or(std::string_view name, std::string_view otherwise) const {
  const auto values = each(name);
  return values.empty() ? std::string(otherwise) : values.back();
}

const Command* find_command(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return nullptr;
  const auto all = commands();
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const Command& command) { return command.name == arguments[0]; });
  return found == all.end() ? nullptr : &*found;
}

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments) {
  try {
    return parse(arguments);
  } catch (const po::error& error) {
    return fail(ErrorKind::kUsage, "{}", printable(error.what()));
  }
}

}  // namespace underlay::img
