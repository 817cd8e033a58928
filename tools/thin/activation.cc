#include "tools/thin/activation.h"

#include <fmt/format.h>

#include <cstdio>

#include "tools/thin/device_mapper.h"
#include "tools/thin/image_choice.h"
#include "tools/thin/image_release.h"
#include "tools/thin/names.h"
#include "tools/thin/origin.h"
#include "tools/thin/output.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/transaction.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {
namespace {

// The image's record says its files' present state from now on.
Result<void> accept_changed(RegistryStore& store, const std::string& image_id) {
  const ImageRecord* const image = store.get().image(image_id);
  if (image == nullptr || image->is_remote()) return {};
  const ImagePlan plan = TRY(plan_image(choice_of(*image), PlanFor::kStamps));
  if (plan.size != image->size) {
    return fail(ErrorKind::kUsage,
                "{} has {} bytes now, {} when volumes were made on it: that cannot be accepted",
                image->location, plan.size, image->size);
  }
  if (plan.files == image->files) return {};
  Registry next = store.get();
  next.image(image_id)->files = plan.files;
  return store.write(std::move(next));
}

Result<void> deactivate_one(const Host& host, const RegistryStore& store,
                            const VolumeRecord& volume) {
  std::vector<Step> steps;
  if (TRY(has_device(volume))) steps.push_back(deactivate_step(volume));
  append_steps(steps, release_origin_steps(host, store.get(), volume.image));
  return perform(host, steps);
}

// Runs `work` for each, reports what fails on standard error, and fails in the end when any did.
template <class List, class Work>
Result<void> for_all(const List& list, const char* what, Work&& work) {
  size_t failed = 0;
  for (const auto& entry : list) {
    if (const Result<void> done = work(entry); !done) {
      ++failed;
      fmt::print(stderr, "underlay-thin: {} {}: {}\n", what, entry.name, done.error().to_string());
    }
  }
  if (failed == 0) return {};
  return fail(ErrorKind::kIo, "{} of {} failed: {}", what, list.size(), failed);
}

}  // namespace

Result<void> bring_up_pool(const Host& host, RegistryStore& store, const std::string& name) {
  const PoolRecord pool = TRY(find_pool(store.get(), name));
  if (!TRY(dm_info(name))) {
    TRY(perform(host, activate_pool_steps(pool)));
  } else if (!host.dry_run) {
    // It may be another pool's, without a table or suspended.
    TRY(activate_pool(pool));
  }
  return host.dry_run ? Result<void>{} : recover_pool(store, name);
}

Result<void> bring_up_volume(const Host& host, RegistryStore& store, const std::string& name,
                             bool accept_changed_image) {
  {
    const VolumeRecord volume = TRY(find_volume(store.get(), name));
    if (TRY(is_active(volume))) return {};
    TRY(bring_up_pool(host, store, volume.pool));
  }
  // The recovery may have taken the volume back.
  const VolumeRecord volume = TRY(find_volume(store.get(), name));
  if (accept_changed_image && !host.dry_run) TRY(accept_changed(store, volume.image));
  std::vector<Step> steps;
  if (!volume.image.empty()) {
    steps = TRY(bring_up_origin_steps(host, *store.get().image(volume.image)));
  }
  steps.push_back(activate_step(volume));
  return perform(host, steps);
}

Result<std::vector<Step>> bring_up_origin_steps(const Host& host, const ImageRecord& image) {
  const auto there = TRY(dm_info(origin_name(image.id)));
  const bool made = there && there->has_table;
  return origin_steps(host, image, made ? nullptr : TRY(plan_known_image(image)));
}

Result<void> activate_command(const Host& host, const ActivateArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  const bool accept = arguments.accept_changed_image;
  if (!arguments.name.empty()) {
    TRY(bring_up_volume(host, store, arguments.name, accept));
    return host.dry_run ? Result<void>{} : report_device(host, dm_path(arguments.name));
  }
  const Registry before = store.get();
  auto pools = for_all(before.pools, "pool", [&](const PoolRecord& pool) {
    return bring_up_pool(host, store, pool.name);
  });
  const auto volumes = for_all(before.volumes, "volume", [&](const VolumeRecord& volume) {
    // A creation that was interrupted has just been taken back.
    if (store.get().volume(volume.name) == nullptr) return Result<void>{};
    return bring_up_volume(host, store, volume.name, accept);
  });
  return volumes ? pools : volumes;
}

Result<void> deactivate_command(const Host& host, const DeactivateArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  if (!arguments.name.empty()) {
    return deactivate_one(host, store, TRY(find_volume(store.get(), arguments.name)));
  }
  auto volumes = for_all(store.get().volumes, "volume", [&](const VolumeRecord& volume) {
    return deactivate_one(host, store, volume);
  });
  const auto pools = for_all(store.get().pools, "pool", [&](const PoolRecord& pool) {
    return host.dry_run ? Result<void>{} : deactivate_pool(pool);
  });
  return volumes ? pools : volumes;
}

}  // namespace underlay::thin
