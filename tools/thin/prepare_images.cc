#include "tools/thin/prepare_images.h"

#include "tools/thin/attach_commands.h"
#include "tools/thin/upgrade.h"
#include "tools/thin/watch.h"

namespace underlay::thin {
namespace {

namespace po = boost::program_options;

Result<DirectMode> direct_mode(const std::string& name) {
  if (name.empty()) return DirectMode::kAuto;
  for (const DirectMode mode : {DirectMode::kAuto, DirectMode::kAlways, DirectMode::kNever}) {
    if (name == name_of(mode)) return mode;
  }
  return fail(ErrorKind::kUsage, "--direct '{}': auto, always or never", printable(name, 80));
}

}  // namespace

void declare_image(OptionList& options) {
  auto add = options.add_options();
  add("format,f", value("FORMAT"), "the image's format (default: guessed, but never raw)");
  add("backing-format", value("FORMAT"), "of its backing file, when the image does not state it");
  add("allow-path", po::value<std::vector<std::string>>()->value_name("DIR"),
      "the image may name files in DIR, too; repeatable");
  add("parent", po::value<std::vector<std::string>>()->value_name("CHILD=PATH"),
      "the parent of the image CHILD (path, or file name alone) is PATH; repeatable");
  add("connections", value("N"), "connections between kernel and server (default 1)");
  add("recovery-timeout", value("SECONDS"),
      "requests of a lost connection are sent again after it; a server that is slower is cut off "
      "(default 5, for a URI 30)");
  add("dead-timeout", value("SECONDS"),
      "reads wait for a lost server so long, then they fail (default 300)");
  add("direct", value("MODE"),
      "read uncompressed data straight from the image's files: auto (default) where it can be, "
      "always (refuse an image that needs the server), or never");
}

Result<ImageArguments> image_arguments(const std::string& location, const CommandOptions& options) {
  ImageArguments arguments;
  arguments.image.location = location;
  arguments.image.format = text_of(options, "format");
  arguments.image.backing_format = text_of(options, "backing-format");
  if (options.contains("allow-path")) {
    arguments.image.allow_paths = options["allow-path"].as<std::vector<std::string>>();
  }
  if (options.contains("parent")) {
    arguments.image.parents = options["parent"].as<std::vector<std::string>>();
  }
  arguments.connections = TRY(number_of(options, "connections")).value_or(arguments.connections);
  arguments.recovery_timeout = TRY(number_of(options, "recovery-timeout"));
  arguments.dead_timeout = TRY(number_of(options, "dead-timeout")).value_or(arguments.dead_timeout);
  arguments.direct = TRY(direct_mode(text_of(options, "direct")));
  return arguments;
}

Result<CommandRun> prepare_attach(const Operands& operands, const CommandOptions& options) {
  return bind(attach_command, AttachArguments{TRY(image_arguments(operands[0], options))});
}

Result<CommandRun> prepare_detach(const Operands& operands, const CommandOptions&) {
  return bind(detach_command, DetachArguments{operands[0]});
}

void declare_watch(OptionList& options) {
  options.add_options()("once", "look at all images once, reconnect what is lost, and end");
}

Result<CommandRun> prepare_watch(const Operands&, const CommandOptions& options) {
  return bind(watch_command, WatchArguments{options.contains("once")});
}

void declare_upgrade(OptionList& options) {
  options.add_options()("all", "all images that have a server");
}

Result<CommandRun> prepare_upgrade(const Operands& operands, const CommandOptions& options) {
  if (operands.empty() != options.contains("all")) {
    return fail(ErrorKind::kUsage, "name one image, or say --all");
  }
  return bind(upgrade_command, UpgradeArguments{operands.empty() ? "" : operands[0]});
}

}  // namespace underlay::thin
