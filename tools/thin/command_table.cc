#include "tools/thin/command_table.h"

#include <array>

#include "tools/thin/activation.h"
#include "tools/thin/list_commands.h"
#include "tools/thin/text.h"
#include "tools/thin/volume_commands.h"

namespace underlay::thin {
namespace {

namespace po = boost::program_options;

using Operands = std::vector<std::string>;

template <class Arguments>
CommandRun bind(Result<void> (*command)(const Host&, const Arguments&), Arguments arguments) {
  return [command, arguments = std::move(arguments)](const Host& host) {
    return command(host, arguments);
  };
}

std::string text_of(const CommandOptions& options, const char* name) {
  return options.contains(name) ? options[name].as<std::string>() : "";
}

Result<std::optional<uint64_t>> size_of(const CommandOptions& options, const char* name,
                                        const char* option) {
  if (!options.contains(name)) return std::optional<uint64_t>();
  return std::optional<uint64_t>(TRY(parse_size(options[name].as<std::string>(), option)));
}

void declare_image(po::options_description& options) {
  auto add = options.add_options();
  add("format,f", po::value<std::string>()->value_name("FORMAT"),
      "the image's format (default: guessed, but never raw)");
  add("backing-format", po::value<std::string>()->value_name("FORMAT"),
      "of its backing file, when the image does not state it");
  add("allow-path", po::value<std::vector<std::string>>()->value_name("DIR"),
      "the image may name files in DIR, too; repeatable");
  add("connections", po::value<unsigned>()->default_value(1)->value_name("N"),
      "connections between kernel and server");
  add("recovery-timeout", po::value<unsigned>()->value_name("SECONDS"),
      "requests of a lost connection are sent again after it; a server that is slower is cut off "
      "(default 5, for a URI 30)");
  add("dead-timeout", po::value<unsigned>()->default_value(300)->value_name("SECONDS"),
      "reads wait for a lost server so long, then they fail");
  add("direct", po::value<std::string>()->default_value("auto")->value_name("MODE"),
      "read uncompressed data straight from the image's files: auto, always or never");
}

Result<DirectMode> direct_mode(const std::string& name) {
  if (name == "auto") return DirectMode::kAuto;
  if (name == "always") return DirectMode::kAlways;
  if (name == "never") return DirectMode::kNever;
  return fail(ErrorKind::kUsage, "--direct '{}': auto, always or never", printable(name, 80));
}

Result<ImageArguments> image_arguments(const std::string& location, const CommandOptions& options) {
  ImageArguments arguments;
  arguments.image.location = location;
  arguments.image.format = text_of(options, "format");
  arguments.image.backing_format = text_of(options, "backing-format");
  if (options.contains("allow-path")) {
    arguments.image.allow_paths = options["allow-path"].as<std::vector<std::string>>();
  }
  arguments.connections = options["connections"].as<unsigned>();
  if (options.contains("recovery-timeout")) {
    arguments.recovery_timeout = options["recovery-timeout"].as<unsigned>();
  }
  arguments.dead_timeout = options["dead-timeout"].as<unsigned>();
  arguments.direct = TRY(direct_mode(text_of(options, "direct")));
  return arguments;
}

void declare_create(po::options_description& options) {
  auto add = options.add_options();
  add("image", po::value<std::string>()->required()->value_name("IMAGE"),
      "a disk image, or an export: nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH");
  add("pool", po::value<std::string>()->required()->value_name("POOL"), "where writes go");
  add("size", po::value<std::string>()->value_name("SIZE"),
      "of the volume (default: the image's; the rest reads as zeros)");
  declare_image(options);
}

Result<CommandRun> prepare_create(const Operands& operands, const CommandOptions& options) {
  return bind(create_command,
              CreateArguments{.name = operands[0],
                              .pool = text_of(options, "pool"),
                              .size = TRY(size_of(options, "size", "--size")),
                              .image = TRY(image_arguments(text_of(options, "image"), options))});
}

Result<CommandRun> prepare_snapshot(const Operands& operands, const CommandOptions&) {
  return bind(snapshot_command, SnapshotArguments{.source = operands[0], .name = operands[1]});
}

// NAME or --all, one of the two.
Result<std::string> name_or_all(const Operands& operands, const CommandOptions& options) {
  if (operands.empty() != options.contains("all")) {
    return fail(ErrorKind::kUsage, "name one volume, or say --all");
  }
  return operands.empty() ? "" : operands[0];
}

void declare_all(po::options_description& options) {
  options.add_options()("all", "all of them, pools too");
}

void declare_activate(po::options_description& options) {
  declare_all(options);
  options.add_options()("accept-changed-image",
                        "the image's files were changed or restored on purpose");
}

Result<CommandRun> prepare_activate(const Operands& operands, const CommandOptions& options) {
  return bind(activate_command,
              ActivateArguments{.name = TRY(name_or_all(operands, options)),
                                .accept_changed_image = options.contains("accept-changed-image")});
}

Result<CommandRun> prepare_deactivate(const Operands& operands, const CommandOptions& options) {
  return bind(deactivate_command, DeactivateArguments{TRY(name_or_all(operands, options))});
}

Result<CommandRun> prepare_remove(const Operands& operands, const CommandOptions&) {
  return bind(remove_command, RemoveArguments{operands[0]});
}

Result<CommandRun> prepare_list(const Operands&, const CommandOptions&) {
  return CommandRun(list_command);
}

Result<CommandRun> prepare_status(const Operands& operands, const CommandOptions&) {
  return bind(status_command, StatusArguments{operands[0]});
}

constexpr std::array kCommands{
    Command{"create", "NAME", "make a volume on an image", declare_create, prepare_create},
    Command{"snapshot", "NAME NEW", "make a volume of another one's present state", nullptr,
            prepare_snapshot},
    Command{"activate", "[NAME]", "bring up a volume, or all (after a boot)", declare_activate,
            prepare_activate},
    Command{"deactivate", "[NAME]", "take down a volume, or all; nothing is lost", declare_all,
            prepare_deactivate},
    Command{"remove", "NAME", "delete a volume", nullptr, prepare_remove},
    Command{"list", "", "list the volumes", nullptr, prepare_list},
    Command{"status", "NAME", "tell how a volume is doing", nullptr, prepare_status},
};

}  // namespace

std::span<const Command> commands() { return kCommands; }

}  // namespace underlay::thin
