#include "tools/thin/fsck_repair.h"

#include <chrono>
#include <filesystem>

#include "io/kernel_nbd.h"
#include "tools/thin/activation.h"
#include "tools/thin/attachment.h"
#include "tools/thin/block_copier.h"
#include "tools/thin/block_device.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/image_release.h"
#include "tools/thin/server_process.h"
#include "tools/thin/transaction.h"
#include "tools/thin/volume_reload.h"

namespace underlay::thin {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kServerLimit{5};

Result<void> run(const std::vector<Step>& steps) {
  StepReport report;
  return run_steps(steps, report);
}

Result<void> remove_path(const std::string& path) {
  std::error_code code;
  fs::remove_all(path, code);
  if (code) return in_file(fail_errno(code.value(), "cannot be removed"), path);
  return {};
}

Result<void> reload(const Host& host, const Registry& registry, const std::string& name) {
  const VolumeRecord volume = TRY(find_volume(registry, name));
  if (!volume.image.empty()) {
    const auto steps = TRY(bring_up_origin_steps(host, *registry.image(volume.image)));
    TRY(run(steps));
  }
  return reload_volume(volume);
}

Result<void> reconnect_image(const Host& host, const ImageRecord& image) {
  const auto device = TRY(find_attachment(image));
  if (device) TRY(reconnect(host, image, *device));
  return {};
}

// The device's backend identifier is looked at again: it may be another one by now.
Result<void> disconnect(const Registry& registry, const std::string& path) {
  for (const KernelNbdDevice& device : TRY(connected_kernel_nbd())) {
    if (device.path != path) continue;
    const auto holders = TRY(block_device_holders(path));
    if (!holders.empty()) {
      return fail(ErrorKind::kUsage, "{} is in use by {}", path, join_holders(holders));
    }
    for (const ImageRecord& image : registry.images) {
      if (image.backend == device.backend) return {};
    }
    KernelNbd nbd = TRY(KernelNbd::open());
    return nbd.disconnect(device.index, device.backend);
  }
  return {};
}

Result<void> end_server_of(const Host& host, const Registry& registry, const std::string& id) {
  {
    const UniqueFd lock = TRY(lock_server(host, id));
    TRY(stop_server(host, id, kServerLimit));
  }
  return registry.image(id) == nullptr ? remove_path(host.image_dir(id)) : Result<void>{};
}

}  // namespace

Result<void> repair_problem(const Host& host, RegistryStore& store, const FsckProblem& problem) {
  const std::string& subject = problem.subject;
  switch (problem.repair) {
    case FsckRepair::kNone:
      break;
    case FsckRepair::kRecover:
      return bring_up_pool(host, store, subject);
    case FsckRepair::kRemoveFile:
      return remove_path(subject);
    case FsckRepair::kRemoveHydrate:
      return remove_hydrate_device(subject);
    case FsckRepair::kClearTable:
      return dm_clear(subject);
    case FsckRepair::kResume:
      return dm_resume(subject);
    case FsckRepair::kReloadVolume:
      return reload(host, store.get(), subject);
    case FsckRepair::kReconnect:
      return reconnect_image(host, *store.get().image(subject));
    case FsckRepair::kRemoveDevice:
      return dm_remove(subject);
    case FsckRepair::kRelease:
      return run(release_origin_steps(host, store.get(), subject, /*except=*/""));
    case FsckRepair::kForget:
      return run(release_image_steps(host, store, subject));
    case FsckRepair::kDisconnect:
      return disconnect(store.get(), subject);
    case FsckRepair::kStopServer:
      return end_server_of(host, store.get(), subject);
  }
  return fail(ErrorKind::kUsage, "this is for a person to decide");
}

}  // namespace underlay::thin
