#include "tools/thin/fsck_observe.h"

#include <algorithm>
#include <filesystem>

#include "io/block_device_holders.h"
#include "tools/thin/block_device.h"
#include "tools/thin/image_plan.h"
#include "tools/thin/origin.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/registry_store.h"
#include "tools/thin/server_process.h"

namespace underlay::thin {
namespace {

namespace fs = std::filesystem;

// Of `underlay-nbd -c`, which looks after its devices itself.
constexpr const char* kServersPrefix = "underlay-nbd-";

// Nothing when the device went away meanwhile.
Result<void> add_device(const std::string& name, std::vector<FsckDevice>& devices) {
  const auto info = TRY(dm_info(name));
  if (!info) return {};
  FsckDevice device{.info = *info, .table = {}};
  if (info->has_table) device.table = TRY(dm_table(name));
  devices.push_back(std::move(device));
  return {};
}

Result<std::vector<FsckDevice>> observe_devices(const Registry& registry) {
  std::vector<std::string> names = TRY(dm_list());
  for (const PoolRecord& pool : registry.pools) names.push_back(pool.name);
  for (const VolumeRecord& volume : registry.volumes) names.push_back(volume.name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::vector<FsckDevice> devices;
  for (const std::string& name : names) TRY(add_device(name, devices));
  return devices;
}

Result<FsckPool> observe_pool(const PoolRecord& pool) {
  FsckPool seen{.name = pool.name, .status = std::nullopt};
  const auto info = TRY(dm_info(pool.name));
  if (!info || info->uuid != pool.uuid || !info->has_table) return seen;
  seen.status = TRY(pool_status(pool.name));
  // A metadata snapshot is a change, which only a healthy pool that runs can make.
  if (seen.status->mode == "rw" && !info->suspended) {
    const std::string metadata = TRY(active_metadata_path(pool.name));
    seen.thin_ids = TRY(pool_thin_ids(pool.name, metadata));
  }
  return seen;
}

Result<std::vector<FsckNbd>> observe_nbd() {
  std::vector<FsckNbd> seen;
  for (const KernelNbdDevice& device : TRY(connected_kernel_nbd())) {
    if (!device.backend.starts_with(kBackendPrefix) || device.backend.starts_with(kServersPrefix)) {
      continue;
    }
    std::string number = TRY(block_device_number(device.path));
    std::vector<std::string> holders = TRY(block_device_holders(device.path));
    seen.push_back({.device = device, .number = std::move(number), .holders = std::move(holders)});
  }
  return seen;
}

Result<std::vector<FsckImage>> observe_images(const Host& host, const Registry& registry) {
  std::vector<FsckImage> seen;
  for (const ImageRecord& image : registry.images) {
    FsckImage one{.id = image.id, .trouble = "", .server_runs = false};
    if (const auto same = check_unchanged(image); !same) one.trouble = same.error().to_string();
    one.server_runs = !image.is_remote() && TRY(running_server(host, image.id)).has_value();
    seen.push_back(std::move(one));
  }
  return seen;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void observe_files(const Host& host, FsckState& state) {
  constexpr std::string_view kReason = kReasonSuffix;
  for (const std::string& name : names_in(host.run_dir)) {
    if (is_image_id(name)) {
      state.run_folders.push_back(name);
    } else if (name.ends_with(kReason)) {
      const std::string id = name.substr(0, name.size() - kReason.size());
      if (is_image_id(id) && state.registry.image(id) == nullptr) {
        state.stale_files.push_back(host.run_dir + "/" + name);
      }
    }
  }
  const std::string unfinished = unfinished_registry(host.state_dir);
  std::error_code code;
  if (fs::exists(unfinished, code)) state.stale_files.push_back(unfinished);
}

}  // namespace

Result<FsckState> observe(const Host& host, const Registry& registry) {
  FsckState state;
  state.registry = registry;
  state.devices = TRY(observe_devices(registry));
  for (const PoolRecord& pool : registry.pools) state.pools.push_back(TRY(observe_pool(pool)));
  state.nbd = TRY(observe_nbd());
  state.images = TRY(observe_images(host, registry));
  observe_files(host, state);
  return state;
}

}  // namespace underlay::thin
