#include "tools/thin/prepare_volumes.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "tools/thin/activation.h"
#include "tools/thin/fsck_command.h"
#include "tools/thin/hydrate_command.h"
#include "tools/thin/list_commands.h"
#include "tools/thin/prepare_images.h"
#include "tools/thin/transfer_commands.h"
#include "tools/thin/volume_commands.h"

namespace underlay::thin {
namespace {

// NAME or --all, one of the two.
Result<std::string> name_or_all(const Operands& operands, const CommandOptions& options) {
  if (operands.empty() != options.contains("all")) {
    return fail(ErrorKind::kUsage, "name one volume, or say --all");
  }
  return operands.empty() ? "" : operands[0];
}

}  // namespace

void declare_create(OptionList& options) {
  auto add = options.add_options();
  add("image", value("IMAGE")->required(),
      "a disk image, or an export: nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH");
  add("pool", value("POOL")->required(), "where writes go");
  add("size", value("SIZE"), "of the volume (default: the image's; the rest reads as zeros)");
  declare_image(options);
}

Result<CommandRun> prepare_create(const Operands& operands, const CommandOptions& options) {
  const auto size = TRY(size_of(options, "size"));
  ImageArguments image = TRY(image_arguments(text_of(options, "image"), options));
  return bind(create_command, CreateArguments{.name = operands[0],
                                              .pool = text_of(options, "pool"),
                                              .size = size,
                                              .image = std::move(image)});
}

Result<CommandRun> prepare_snapshot(const Operands& operands, const CommandOptions&) {
  return bind(snapshot_command, SnapshotArguments{.source = operands[0], .name = operands[1]});
}

void declare_activate(OptionList& options) {
  auto add = options.add_options();
  add("all", "all pools and volumes");
  add("accept-changed-image", "the image's files were changed or restored on purpose");
}

Result<CommandRun> prepare_activate(const Operands& operands, const CommandOptions& options) {
  return bind(activate_command,
              ActivateArguments{.name = TRY(name_or_all(operands, options)),
                                .accept_changed_image = options.contains("accept-changed-image")});
}

void declare_deactivate(OptionList& options) {
  options.add_options()("all", "all volumes and pools");
}

Result<CommandRun> prepare_deactivate(const Operands& operands, const CommandOptions& options) {
  return bind(deactivate_command, DeactivateArguments{TRY(name_or_all(operands, options))});
}

Result<CommandRun> prepare_remove(const Operands& operands, const CommandOptions&) {
  return bind(remove_command, RemoveArguments{operands[0]});
}

void declare_hydrate(OptionList& options) {
  auto add = options.add_options();
  add("rate", value("SIZE"), "copy at most so many bytes a second");
  add("progress", "show progress also when standard error is no terminal");
}

Result<CommandRun> prepare_hydrate(const Operands& operands, const CommandOptions& options) {
  const auto rate = TRY(size_of(options, "rate"));
  return bind(hydrate_command,
              HydrateArguments{
                  .name = operands[0], .rate = rate, .progress = options.contains("progress")});
}

void declare_export(OptionList& options) {
  auto add = options.add_options();
  add("target-format,O", value("FORMAT"), "raw (default), qcow2, vpc or vmdk");
  add("options,o", boost::program_options::value<Operands>()->value_name("OPTIONS"),
      "how the image is made, as of underlay-img convert; repeatable");
  add("since", value("SNAPSHOT"),
      "only what differs from this older snapshot, as an overlay (qcow2, vpc)");
  add("backing", value("FILE"),
      "with --since: the image of that snapshot, as the overlay names it");
  add("backing-format", value("FORMAT"), "of that image (default: the overlay's)");
  add("allow-path", boost::program_options::value<Operands>()->value_name("DIR"),
      "that image, a vhd, may name parents in DIR, too; repeatable");
  add("compress,c", "compress what is stored (qcow2, streamOptimized vmdk)");
  add("progress", "show progress also when standard error is no terminal");
}

Result<CommandRun> prepare_export(const Operands& operands, const CommandOptions& options) {
  ExportArguments arguments;
  arguments.name = operands[0];
  arguments.target = operands[1];
  if (options.contains("target-format")) arguments.format = text_of(options, "target-format");
  if (options.contains("options")) arguments.options = options["options"].as<Operands>();
  arguments.since = text_of(options, "since");
  arguments.backing = text_of(options, "backing");
  arguments.backing_format =
      options.contains("backing-format") ? text_of(options, "backing-format") : arguments.format;
  if (arguments.since.empty() != arguments.backing.empty()) {
    return fail(ErrorKind::kUsage, "--since and --backing: each needs the other");
  }
  constexpr std::array<std::string_view, 3> kWithOverlays{"qcow2", "vpc", "vhd"};
  if (!arguments.since.empty() && std::ranges::count(kWithOverlays, arguments.format) == 0) {
    return fail(ErrorKind::kUsage, "--since: say -O qcow2 or -O vpc, which have overlays");
  }
  if (options.contains("allow-path")) {
    arguments.allow_paths = options["allow-path"].as<Operands>();
  }
  arguments.compress = options.contains("compress");
  arguments.progress = options.contains("progress");
  return bind(export_command, std::move(arguments));
}

void declare_import(OptionList& options) {
  auto add = options.add_options();
  add("pool", value("POOL")->required(), "where the volume is made");
  add("size", value("SIZE"), "of the volume (default: the image's; the rest reads as zeros)");
  add("rate", value("SIZE"), "copy at most so many bytes a second");
  add("progress", "show progress also when standard error is no terminal");
  declare_image(options);
}

Result<CommandRun> prepare_import(const Operands& operands, const CommandOptions& options) {
  ImportArguments arguments;
  arguments.volume = {.name = operands[0],
                      .pool = text_of(options, "pool"),
                      .size = TRY(size_of(options, "size")),
                      .image = TRY(image_arguments(operands[1], options))};
  arguments.rate = TRY(size_of(options, "rate"));
  arguments.progress = options.contains("progress");
  return bind(import_command, std::move(arguments));
}

void declare_fsck(OptionList& options) {
  options.add_options()("repair", "repair what can be repaired without losing data");
}

Result<CommandRun> prepare_fsck(const Operands&, const CommandOptions& options) {
  return bind(fsck_command, FsckArguments{.repair = options.contains("repair")});
}

Result<CommandRun> prepare_list(const Operands&, const CommandOptions&) {
  return CommandRun(list_command);
}

Result<CommandRun> prepare_status(const Operands& operands, const CommandOptions&) {
  return bind(status_command, StatusArguments{operands[0]});
}

}  // namespace underlay::thin
