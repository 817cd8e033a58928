#include "tools/thin/fsck_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/thin/fsck_check_volumes.h"
#include "tools/thin/origin.h"

namespace underlay::thin {
namespace {

using Problems = std::vector<FsckProblem>;

const FsckDevice* device_named(const FsckState& state, const std::string& name) {
  for (const FsckDevice& device : state.devices) {
    if (device.info.name == name) return &device;
  }
  return nullptr;
}

bool is_attached(const FsckState& state, const ImageRecord& image) {
  return std::any_of(state.nbd.begin(), state.nbd.end(),
                     [&](const FsckNbd& nbd) { return nbd.device.backend == image.backend; });
}

// Is a volume on the image active?
bool is_in_use(const FsckState& state, const ImageRecord& image) {
  return std::any_of(
      state.registry.volumes.begin(), state.registry.volumes.end(), [&](const VolumeRecord& one) {
        const FsckDevice* const device = device_named(state, one.name);
        return one.image == image.id && device != nullptr && device->info.uuid == one.uuid;
      });
}

// A device whose UUID says that it is this program's: whose is it?
bool is_known(const FsckState& state, const DmInfo& info) {
  for (const PoolRecord& pool : state.registry.pools) {
    if (pool.uuid == info.uuid && pool.name == info.name) return true;
  }
  for (const VolumeRecord& volume : state.registry.volumes) {
    if (volume.uuid == info.uuid && volume.name == info.name) return true;
  }
  for (const ImageRecord& image : state.registry.images) {
    if (origin_name(image.id) == info.name) return true;
  }
  return false;
}

void check_unknown_device(const DmInfo& info, Problems& problems) {
  const std::string path = dm_path(info.name);
  if (info.open_count > 0) {
    problems.push_back({.what = "unknown-device",
                        .text = fmt::format("{}: the registry knows nothing of it, and it is in "
                                            "use: remove it once it is not",
                                            path)});
    return;
  }
  problems.push_back(
      {.what = "unknown-device",
       .text = fmt::format("{}: the registry knows nothing of it, and nothing uses it", path),
       .repair = FsckRepair::kRemoveDevice,
       .subject = info.name});
}

void check_known_device(const FsckDevice& device, Problems& problems) {
  const DmInfo& info = device.info;
  const std::string path = dm_path(info.name);
  if (!info.has_table && !info.suspended && !info.has_inactive_table) {
    problems.push_back({.what = "empty-device",
                        .text = fmt::format("{} has no table", path),
                        .repair = FsckRepair::kRemoveDevice,
                        .subject = info.name});
    return;
  }
  if (info.has_inactive_table && info.has_table) {
    problems.push_back({.what = "inactive-table",
                        .text = fmt::format("{}: a table was loaded and never became live", path),
                        .repair = FsckRepair::kClearTable,
                        .subject = info.name});
  }
  if (info.suspended && info.has_table) {
    problems.push_back({.what = "suspended",
                        .text = fmt::format("{} is suspended: all of its I/O waits", path),
                        .repair = FsckRepair::kResume,
                        .subject = info.name});
  } else if (!info.has_table) {
    problems.push_back({.what = "empty-device",
                        .text = fmt::format("{} has no live table", path),
                        .repair = FsckRepair::kRemoveDevice,
                        .subject = info.name});
  }
}

void check_devices(const FsckState& state, Problems& problems) {
  const std::string hydrate = std::string(kDmUuidPrefix) + "hydrate-";
  for (const FsckDevice& device : state.devices) {
    const DmInfo& info = device.info;
    if (!info.uuid.starts_with(kDmUuidPrefix)) {
      problems.push_back({.what = "name-taken",
                          .text = fmt::format("{} belongs to another program (UUID '{}'), and a "
                                              "pool or volume has that name: rename it",
                                              dm_path(info.name), printable(info.uuid, 80))});
    } else if (info.uuid.starts_with(hydrate)) {
      // In use: a hydration is under way.
      if (info.open_count > 0) continue;
      problems.push_back({.what = "hydrate-device",
                          .text = fmt::format("{}: left by a hydration that was killed; it goes on "
                                              "when 'underlay-thin hydrate' is run again",
                                              dm_path(info.name)),
                          .repair = FsckRepair::kRemoveHydrate,
                          .subject = info.name});
    } else if (is_known(state, info)) {
      check_known_device(device, problems);
    } else {
      check_unknown_device(info, problems);
    }
  }
}

const FsckImage* image_state(const FsckState& state, const std::string& id) {
  for (const FsckImage& image : state.images) {
    if (image.id == id) return &image;
  }
  return nullptr;
}

void check_server(const FsckState& state, const ImageRecord& image, bool attached,
                  Problems& problems) {
  const FsckImage* const seen = image_state(state, image.id);
  if (seen == nullptr || image.is_remote() || attached == seen->server_runs) return;
  if (attached) {
    problems.push_back({.what = "no-server",
                        .text = fmt::format("{} is attached, and its server does not run: reads of "
                                            "it wait and fail in the end",
                                            image.location),
                        .repair = FsckRepair::kReconnect,
                        .subject = image.id});
  } else {
    problems.push_back({.what = "unused-server",
                        .text = fmt::format("{}: its server runs, and no nbd device is connected "
                                            "to it",
                                            image.location),
                        .repair = FsckRepair::kStopServer,
                        .subject = image.id});
  }
}

void check_image(const FsckState& state, const ImageRecord& image, Problems& problems) {
  const bool attached = is_attached(state, image);
  check_server(state, image, attached, problems);
  if (!has_volumes(state.registry, image.id) && !image.keep) {
    problems.push_back({.what = "unused-image",
                        .text = fmt::format("{}: no volume lies on it any more", image.location),
                        .repair = FsckRepair::kForget,
                        .subject = image.id});
    return;
  }
  const FsckImage* const seen = image_state(state, image.id);
  if (seen != nullptr && !seen->trouble.empty()) {
    problems.push_back({.what = "image-changed", .text = seen->trouble});
  }
  const bool has_origin = device_named(state, origin_name(image.id)) != nullptr;
  if (!is_in_use(state, image) && (has_origin || (attached && !image.keep))) {
    problems.push_back(
        {.what = "unused-origin",
         .text = fmt::format(
             "{}: no volume on it is active, and {} is there", image.location,
             has_origin ? dm_path(origin_name(image.id)) : std::string("its nbd device")),
         .repair = FsckRepair::kRelease,
         .subject = image.id});
  }
}

void check_nbd(const FsckState& state, Problems& problems) {
  for (const FsckNbd& nbd : state.nbd) {
    const bool known =
        std::any_of(state.registry.images.begin(), state.registry.images.end(),
                    [&](const ImageRecord& image) { return image.backend == nbd.device.backend; });
    if (known) continue;
    if (nbd.holders.empty()) {
      problems.push_back({.what = "unknown-nbd",
                          .text = fmt::format("{}: the registry knows nothing of it ({}), and "
                                              "nothing uses it",
                                              nbd.device.path, printable(nbd.device.backend, 80)),
                          .repair = FsckRepair::kDisconnect,
                          .subject = nbd.device.path});
    } else {
      problems.push_back({.what = "unknown-nbd",
                          .text = fmt::format("{}: the registry knows nothing of it ({}), and it "
                                              "is in use by {}",
                                              nbd.device.path, printable(nbd.device.backend, 80),
                                              fmt::join(nbd.holders, ", "))});
    }
  }
}

void check_files(const FsckState& state, Problems& problems) {
  for (const std::string& id : state.run_folders) {
    if (state.registry.image(id) != nullptr) continue;
    problems.push_back({.what = "unknown-server",
                        .text = fmt::format("{}: a server, or the files of one, for an image that "
                                            "the registry does not know",
                                            id),
                        .repair = FsckRepair::kStopServer,
                        .subject = id});
  }
  for (const std::string& path : state.stale_files) {
    problems.push_back({.what = "stale-file",
                        .text = fmt::format("{}: left by a command that was killed", path),
                        .repair = FsckRepair::kRemoveFile,
                        .subject = path});
  }
}

}  // namespace

std::vector<FsckProblem> find_problems(const FsckState& state) {
  Problems problems;
  for (const FsckPool& pool : state.pools) check_pool(state, pool, problems);
  check_devices(state, problems);
  for (const VolumeRecord& volume : state.registry.volumes) {
    check_volume(state, volume, problems);
  }
  for (const ImageRecord& image : state.registry.images) check_image(state, image, problems);
  check_nbd(state, problems);
  check_files(state, problems);
  std::stable_sort(problems.begin(), problems.end(),
                   [](const auto& a, const auto& b) { return a.repair < b.repair; });
  return problems;
}

}  // namespace underlay::thin
