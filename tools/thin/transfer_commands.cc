#include "tools/thin/transfer_commands.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/http/remote_name.h"
#include "io/unique_fd.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/hydrate_command.h"
#include "tools/thin/hydration.h"
#include "tools/thin/names.h"
#include "tools/thin/output.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/random_id.h"
#include "tools/thin/run_program.h"
#include "tools/thin/transaction.h"

namespace underlay::thin {
namespace {

struct Export {
  Host host;
  ExportArguments arguments;
  std::string snapshot;  // the volume that is read
  std::string map;       // a file: what of it has data
};

// Blocks in which the volume may have data: its own, and those that it reads from its image. With
// `since`: in which it may have other data than that volume.
Result<BlockRuns> data_blocks(const Registry& registry, const VolumeRecord& volume,
                              const PoolRecord& pool, const VolumeRecord* since) {
  const std::string metadata = TRY(active_metadata_path(pool.name));
  if (since != nullptr) {
    return pool_changed_runs(pool.name, metadata, since->thin_id, volume.thin_id);
  }
  BlockRuns blocks = TRY(pool_mapped_runs(pool.name, metadata, volume.thin_id));
  if (volume.image.empty()) return blocks;
  const ImageRecord& image = *registry.image(volume.image);
  // Of another server's export only the reading shows what is zero.
  std::vector<AllocatedRun> data{{.start = 0, .sectors = image.size / kSectorBytes}};
  if (!image.is_remote()) {
    const ImagePlan plan = TRY(plan_image(choice_of(image), PlanFor::kDirectMap));
    TRY(check_unchanged(image, plan));
    if (plan.direct) data = allocated_runs(plan.runs);
  }
  const BlockRuns of_image = blocks_with_data(data, pool.block_sectors, volume.sectors);
  blocks.insert(blocks.end(), of_image.begin(), of_image.end());
  return normalized(std::move(blocks));
}

// As `underlay-img map --output=json` has it.
std::string map_text(const BlockRuns& blocks, uint64_t block_bytes, uint64_t volume_bytes) {
  std::string text = "[";
  for (const MappedRun& run : blocks) {
    const uint64_t start = run.first_block * block_bytes;
    if (start >= volume_bytes) break;  // the pool's last block reaches over the end
    const uint64_t length = std::min(run.blocks * block_bytes, volume_bytes - start);
    if (text.size() > 1) text += ",\n";
    text += fmt::format(R"({{ "start": {}, "length": {}, "data": true }})", start, length);
  }
  return text + "]\n";
}

Result<void> write_map(const std::string& path, std::string_view text) {
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) return in_file(fail_errno(errno, "cannot create"), path);
  while (!text.empty()) {
    const ssize_t put = ::write(file.get(), text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return in_file(fail_errno(errno, "cannot write"), path);
    text.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

Result<void> make_map(const Export& state) {
  const RegistryStore store = TRY(open_registry(state.host));
  const VolumeRecord volume = TRY(find_volume(store.get(), state.snapshot));
  const PoolRecord pool = TRY(find_pool(store.get(), volume.pool));
  const VolumeRecord* since = nullptr;
  if (!state.arguments.since.empty()) since = store.get().volume(state.arguments.since);
  const BlockRuns blocks = TRY(data_blocks(store.get(), volume, pool, since));
  return write_map(state.map, map_text(blocks, pool.block_sectors * kSectorBytes,
                                       volume.sectors * kSectorBytes));
}

std::vector<std::string> convert_words(const Export& state) {
  std::vector<std::string> words{
      state.host.image_program, "convert", "-f", "raw", "--data-map", state.map, "-O",
      state.arguments.format};
  for (const std::string& option : state.arguments.options)
    words.insert(words.end(), {"-o", option});
  if (state.arguments.compress) words.emplace_back("-c");
  for (const std::string& folder : state.arguments.allow_paths)
    words.insert(words.end(), {"--allow-path", folder});
  if (!state.arguments.since.empty()) {
    words.insert(words.end(),
                 {"-B", state.arguments.backing, "-F", state.arguments.backing_format});
  }
  if (state.arguments.progress || ::isatty(STDERR_FILENO) == 1) words.emplace_back("-p");
  // All is on the disk before the snapshot goes.
  words.insert(words.end(), {"-t", "writeback", dm_path(state.snapshot), state.arguments.target});
  return words;
}

std::string shown_words(const Export& state) {
  std::string text;
  for (const std::string& word : convert_words(state)) text += shown_name(word) + ' ';
  text.pop_back();
  return text;
}

std::vector<Step> export_steps(const std::shared_ptr<const Export>& state) {
  const Host host = state->host;
  const auto remove_map = [path = state->map]() -> Result<void> {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return in_file(fail_errno(errno, "cannot remove"), path);
  };
  const auto remove_snapshot = [host, name = state->snapshot] {
    const InterruptionPutOff anyway;
    return remove_command(host, {.name = name});
  };
  std::vector<Step> steps;
  steps.push_back(
      {.name = "snapshot",
       .words = fmt::format("underlay-thin snapshot {} {}", state->arguments.name, state->snapshot),
       .run =
           [state] {
             return make_snapshot(state->host,
                                  {.source = state->arguments.name, .name = state->snapshot});
           },
       .undo = remove_snapshot});
  steps.push_back(
      {.name = "map",
       .words = fmt::format("thin_dump -m  # the blocks of {} to {}", state->snapshot, state->map),
       .run = [state] { return make_map(*state); },
       .undo = remove_map});
  steps.push_back({.name = "convert",
                   .words = shown_words(*state),
                   .run = [state] { return run_with_progress(convert_words(*state)); },
                   .undo = {}});
  steps.push_back(
      {.name = "remove-map", .words = "rm " + state->map, .run = remove_map, .undo = {}});
  steps.push_back({.name = "remove-snapshot",
                   .words = "underlay-thin remove " + state->snapshot,
                   .run = remove_snapshot,
                   .undo = {}});
  return steps;
}

Result<void> report_export(const Host& host, const Export& state) {
  const std::string target = shown_name(state.arguments.target);
  if (host.json) {
    const nlohmann::ordered_json document{{"version", 1},
                                          {"name", state.arguments.name},
                                          {"target", target},
                                          {"format", state.arguments.format}};
    print_json(document);
  } else {
    fmt::print("{}\n", target);
  }
  return {};
}

// Blocks can only be compared within a pool, and what neither has must be the same, too.
Result<void> check_since(const Registry& registry, const ExportArguments& arguments) {
  const VolumeRecord volume = TRY(find_volume(registry, arguments.name));
  if (arguments.since.empty()) return {};
  const VolumeRecord since = TRY(find_volume(registry, arguments.since));
  if (since.pool == volume.pool && since.image == volume.image && since.sectors == volume.sectors &&
      since.name != volume.name) {
    return {};
  }
  return fail(ErrorKind::kUsage,
              "--since {}: must be a snapshot of {}: in the same pool, on the same image, as large",
              since.name, volume.name);
}

}  // namespace

Result<void> export_command(const Host& host, const ExportArguments& arguments) {
  const std::string id = TRY(random_id());
  auto state = std::make_shared<Export>();
  state->host = host;
  state->arguments = arguments;
  state->snapshot = fmt::format("{}-export-{}", arguments.name, id);
  state->map = fmt::format("{}/export-{}.json", host.run_dir, id);
  TRY(check_name(state->snapshot, "volume"));
  std::error_code error;
  if (!host.dry_run) std::filesystem::create_directories(host.run_dir, error);
  {
    const RegistryStore store = TRY(open_registry(host));
    TRY(check_since(store.get(), arguments));
  }
  TRY(perform(host, export_steps(state)));
  return host.dry_run ? Result<void>{} : report_export(host, *state);
}

Result<void> import_command(const Host& host, const ImportArguments& arguments) {
  TRY(make_volume(host, arguments.volume));
  if (host.dry_run) return {};
  auto copied = hydrate_command(
      host,
      {.name = arguments.volume.name, .rate = arguments.rate, .progress = arguments.progress});
  if (copied) return {};
  return with_context(
      std::move(copied).error(),
      fmt::format("the volume is there, and 'underlay-thin hydrate {}' goes on with "
                  "the copying: ",
                  arguments.volume.name));
}

}  // namespace underlay::thin
