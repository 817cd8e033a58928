#include "tools/thin/prepare_pools.h"

#include <algorithm>

#include "tools/thin/pool_commands.h"

namespace underlay::thin {
namespace {

Result<Discards> discards_of(const std::string& name) {
  if (name.empty()) return Discards::kIgnore;
  for (const Discards discards : {Discards::kIgnore, Discards::kUnmap}) {
    if (name == name_of(discards)) return discards;
  }
  return fail(ErrorKind::kUsage, "--discards '{}': ignore or unmap", printable(name, 80));
}

// "10%", or "10".
Result<unsigned> percent_of(std::string text, unsigned otherwise) {
  if (text.empty()) return otherwise;
  if (text.ends_with('%')) text.pop_back();
  const bool digits =
      !text.empty() && text.size() <= 3 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const int percent = digits ? std::stoi(text) : -1;
  if (percent < 0 || percent > 100) {
    return fail(ErrorKind::kUsage, "--low-water '{}': a percentage from 0% to 100%",
                printable(text, 80));
  }
  return static_cast<unsigned>(percent);
}

}  // namespace

void declare_pool_create(OptionList& options) {
  auto add = options.add_options();
  add("data", value("DEV"), "the device for data");
  add("metadata", value("DEV"), "the device for metadata (about 1/1000 of the data)");
  add("file", value("DIR"), "instead: two sparse files in DIR, on loop devices");
  add("size", value("SIZE"), "of the data, with --file");
  add("block-size", value("SIZE"), "64K (default) to 1G: what the first write of a block copies");
  add("low-water", value("PERCENT"), "free space at which status warns (default 10%)");
  add("discards", value("MODE"),
      "ignore (default): a discarded block keeps its bytes; unmap: its space is free again, and "
      "the image's bytes come back into view");
  add("force", "use devices that hold something, and metadata that is small");
}

Result<CommandRun> prepare_pool_create(const Operands& operands, const CommandOptions& options) {
  PoolCreateArguments arguments;
  arguments.name = operands[0];
  arguments.data = text_of(options, "data");
  arguments.metadata = text_of(options, "metadata");
  arguments.folder = text_of(options, "file");
  arguments.size = TRY(size_of(options, "size"));
  arguments.block_size = TRY(size_of(options, "block-size")).value_or(arguments.block_size);
  arguments.low_water_percent =
      TRY(percent_of(text_of(options, "low-water"), arguments.low_water_percent));
  arguments.discards = TRY(discards_of(text_of(options, "discards")));
  arguments.force = options.contains("force");
  const bool devices = !arguments.data.empty() && !arguments.metadata.empty();
  const bool files = !arguments.folder.empty() && arguments.size;
  const bool mixed = devices ? !arguments.folder.empty() || arguments.size.has_value()
                             : !arguments.data.empty() || !arguments.metadata.empty();
  if (devices == files || mixed) {
    return fail(ErrorKind::kUsage,
                "a pool needs --data DEV --metadata DEV, or --file DIR --size SIZE");
  }
  return bind(pool_create_command, std::move(arguments));
}

Result<CommandRun> prepare_pool_list(const Operands&, const CommandOptions&) {
  return CommandRun(pool_list_command);
}

Result<CommandRun> prepare_pool_status(const Operands& operands, const CommandOptions&) {
  return bind(pool_status_command, PoolStatusArguments{operands[0]});
}

void declare_pool_grow(OptionList& options) {
  options.add_options()("size", value("SIZE"), "of the data, for a pool on files");
}

Result<CommandRun> prepare_pool_grow(const Operands& operands, const CommandOptions& options) {
  const auto size = TRY(size_of(options, "size"));
  return bind(pool_grow_command, PoolGrowArguments{.name = operands[0], .size = size});
}

void declare_pool_remove(OptionList& options) {
  options.add_options()("force",
                        "also a pool that is broken, or has thin volumes that nobody knows");
}

Result<CommandRun> prepare_pool_remove(const Operands& operands, const CommandOptions& options) {
  return bind(pool_remove_command,
              PoolRemoveArguments{.name = operands[0], .force = options.contains("force")});
}

}  // namespace underlay::thin
