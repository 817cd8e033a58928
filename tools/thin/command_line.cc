#include "tools/thin/command_line.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <sstream>

#include "tools/common/text.h"
#include "tools/thin/command_table.h"

namespace underlay::thin {
namespace {

namespace po = boost::program_options;

constexpr std::array kValueOptions{"--state-dir", "--run-dir", "--cache-dir", "--cache-size",
                                   "--server"};

po::options_description common_options() {
  po::options_description options("Options of all commands");
  auto add = options.add_options();
  add("state-dir", po::value<std::string>()->value_name("DIR"),
      "where the registry is (default /var/lib/underlay)");
  add("run-dir", po::value<std::string>()->value_name("DIR"),
      "where servers have sockets and logs (default /run/underlay)");
  add("cache-dir", po::value<std::string>()->value_name("DIR"),
      "what was read of images on other servers (default /var/cache/underlay-nbd); '': not kept");
  add("cache-size", po::value<std::string>()->value_name("SIZE"),
      "how many bytes that may be, of all servers (default 10G)");
  add("server", po::value<std::string>()->value_name("PROGRAM"),
      "underlay-nbd (default: beside this program, or in PATH)");
  add("dry-run", "print the steps, as commands that a person can run; do nothing");
  add("json", "answer in JSON");
  add("verbose,v", "print the time that each step took");
  add("help,h", "print this and exit");
  add("version,V", "print the version and exit");
  return options;
}

std::string program_help() {
  std::ostringstream text;
  text << "Usage: underlay-thin COMMAND [OPTIONS]\n"
          "Puts a disk image under a device-mapper thin volume: a template becomes a writable disk "
          "of its own.\n\n";
  for (const Command& command : commands()) {
    text << fmt::format("  {:<28} {}\n", fmt::format("{} {}", command.name, command.operands),
                        command.help);
  }
  text << '\n' << common_options() << "\nSee 'underlay-thin COMMAND --help' for its options.\n";
  return text.str();
}

std::string command_help(const Command& command) {
  std::ostringstream text;
  text << fmt::format("Usage: underlay-thin {} {} [OPTIONS]\n{}\n\n", command.name,
                      command.operands, command.help);
  if (command.declare != nullptr) {
    po::options_description own("Options");
    command.declare(own);
    text << own << '\n';
  }
  text << common_options();
  return text.str();
}

// The words of the command line that are no options and no values of common options, as far as it
// takes to tell the command; their positions.
std::vector<size_t> leading_words(const std::vector<std::string>& arguments) {
  constexpr size_t kMostWords = 2;
  std::vector<size_t> words;
  for (size_t i = 0; i < arguments.size() && words.size() < kMostWords; ++i) {
    if (arguments[i] == "--") break;
    if (!arguments[i].starts_with('-')) {
      words.push_back(i);
    } else if (std::find(kValueOptions.begin(), kValueOptions.end(), arguments[i]) !=
               kValueOptions.end()) {
      ++i;
    }
  }
  return words;
}

struct FoundCommand {
  const Command* command = nullptr;
  std::vector<std::string> rest;  // the command line without the command's words
};

Result<FoundCommand> find_command(std::vector<std::string> arguments) {
  const std::vector<size_t> words = leading_words(arguments);
  for (size_t count = words.size(); count > 0; --count) {
    std::string name = arguments[words[0]];
    if (count == 2) name += " " + arguments[words[1]];
    for (const Command& command : commands()) {
      if (command.name != name) continue;
      for (size_t i = count; i-- > 0;) {
        arguments.erase(arguments.begin() + static_cast<ptrdiff_t>(words[i]));
      }
      return FoundCommand{&command, std::move(arguments)};
    }
  }
  if (words.empty()) return FoundCommand{nullptr, std::move(arguments)};
  return fail(ErrorKind::kUsage, "unknown command '{}'", printable(arguments[words[0]], 80));
}

// How many operands the command takes: {least, most}.
std::pair<size_t, size_t> operand_counts(const Command& command) {
  std::istringstream words{std::string(command.operands)};
  std::pair<size_t, size_t> counts{0, 0};
  for (std::string word; words >> word; ++counts.second) {
    if (!word.starts_with('[')) ++counts.first;
  }
  return counts;
}

// Another program: beside this one, else wherever PATH has it.
std::string beside(const char* name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto path = self.parent_path() / name;
  return !error && ::access(path.c_str(), X_OK) == 0 ? path.string() : name;
}

Result<std::string> absolute_folder(const std::string& text, const char* option) {
  if (text.empty()) return fail(ErrorKind::kUsage, "{}: a folder is missing", option);
  return std::filesystem::absolute(text).lexically_normal().string();
}

Result<Host> host_of(const CommandOptions& options) {
  Host host;
  if (options.contains("state-dir")) {
    host.state_dir = TRY(absolute_folder(options["state-dir"].as<std::string>(), "--state-dir"));
  }
  if (options.contains("run-dir")) {
    host.run_dir = TRY(absolute_folder(options["run-dir"].as<std::string>(), "--run-dir"));
  }
  if (options.contains("cache-size")) {
    host.cache_size = options["cache-size"].as<std::string>();
    TRY(parse_size(host.cache_size, "--cache-size"));
  }
  if (options.contains("cache-dir")) {
    const auto folder = options["cache-dir"].as<std::string>();
    host.cache_dir = folder.empty() ? "" : TRY(absolute_folder(folder, "--cache-dir"));
  }
  host.server =
      options.contains("server") ? options["server"].as<std::string>() : beside("underlay-nbd");
  host.image_program = beside("underlay-img");
  host.dry_run = options.contains("dry-run");
  host.json = options.contains("json");
  host.verbose = options.contains("verbose");
  return host;
}

Result<CommandLine> text_only(std::string text) {
  return CommandLine{.host = {}, .run = {}, .text = std::move(text)};
}

Result<CommandLine> parse(const FoundCommand& found) {
  const Command* const command = found.command;
  po::options_description all = common_options();
  if (command != nullptr && command->declare != nullptr) command->declare(all);
  all.add_options()("operand", po::value<std::vector<std::string>>());
  po::positional_options_description positional;
  positional.add("operand", -1);
  CommandOptions options;
  po::store(po::command_line_parser(found.rest)
                .options(all)
                .positional(positional)
                .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                .run(),
            options);
  if (options.contains("version")) {
    return text_only(fmt::format("underlay-thin {}\n", UNDERLAY_VERSION));
  }
  if (options.contains("help")) {
    return text_only(command == nullptr ? program_help() : command_help(*command));
  }
  if (command == nullptr) return fail(ErrorKind::kUsage, "a command is missing");
  po::notify(options);  // only now: --help needs no option that is required

  std::vector<std::string> operands;
  if (options.contains("operand")) operands = options["operand"].as<std::vector<std::string>>();
  const auto [least, most] = operand_counts(*command);
  if (operands.size() < least || operands.size() > most) {
    return fail(ErrorKind::kUsage, "usage: underlay-thin {} {}", command->name, command->operands);
  }
  CommandLine line;
  line.host = TRY(host_of(options));
  line.run = TRY(command->prepare(operands, options));
  return line;
}

}  // namespace

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments) {
  const FoundCommand found = TRY(find_command(arguments));
  try {
    return parse(found);
  } catch (const po::error& error) {
    return fail(ErrorKind::kUsage, "{}", printable(error.what()));
  }
}

}  // namespace underlay::thin
