#include "tools/thin/hydrate_command.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tools/common/text.h"
#include "tools/thin/activation.h"
#include "tools/thin/image_release.h"
#include "tools/thin/names.h"
#include "tools/thin/output.h"
#include "tools/thin/transaction.h"
#include "tools/thin/volume_device.h"
#include "tools/thin/volume_reload.h"

namespace underlay::thin {
namespace {

struct Hydrate {
  Host host;
  HydrationRun run;
  std::optional<RegistryStore> store;  // locked, unless blocks are being copied
};

Step activate_volume_step(const Host& host, const std::string& name) {
  return {.name = "activate-volume",
          .words = "underlay-thin activate " + name,
          .run = [host, name]() -> Result<void> {
            RegistryStore store = TRY(open_registry(host));
            return bring_up_volume(host, store, name, /*accept_changed_image=*/false);
          },
          .undo = {}};
}

// Each takes the registry's lock for itself, as long as it needs it.
std::vector<Step> copy_steps(const std::shared_ptr<Hydrate>& hydrate, const VolumeRecord& volume) {
  const std::string device = hydrate_device_name(volume);
  const auto close = [hydrate]() { return hydrate->run.close(); };
  std::vector<Step> steps;
  steps.push_back(
      {.name = "create-hydrate",
       .words = fmt::format("dmsetup create {} --uuid {}  # a second thin device with the id {}",
                            device, hydrate_device_uuid(volume), volume.thin_id),
       .run = [hydrate]() { return hydrate->run.prepare(); },
       .undo = close});
  steps.push_back({.name = "copy",
                   .words = fmt::format("# for a few blocks at a time: dmsetup suspend {0}; read "
                                        "them from {1} and write them back; dmsetup resume {0}",
                                        volume.name, device),
                   .run = [hydrate]() { return hydrate->run.copy(); },
                   .undo = {}});
  steps.push_back(
      {.name = "remove-hydrate", .words = "dmsetup remove " + device, .run = close, .undo = {}});
  return steps;
}

Result<void> set_image(RegistryStore& store, const std::string& volume, const std::string& image) {
  Registry next = store.get();
  VolumeRecord* const record = next.volume(volume);
  if (record == nullptr) return fail(ErrorKind::kNotFound, "{}: the volume is gone", volume);
  record->image = image;
  return store.write(std::move(next));
}

Step record_step(const std::shared_ptr<Hydrate>& hydrate, const VolumeRecord& volume) {
  return {.name = "record-hydrated",
          .words = fmt::format("# registry: volume {} needs no image", volume.name),
          .run = [hydrate, name = volume.name]() -> Result<void> {
            TRY(hydrate->run.check_complete(hydrate->store->get()));
            return set_image(*hydrate->store, name, "");
          },
          .undo = [hydrate,
                   volume]() { return set_image(*hydrate->store, volume.name, volume.image); }};
}

Step drop_step(VolumeRecord volume) {
  volume.image.clear();
  return {.name = "drop-origin",
          .words = fmt::format("dmsetup reload {0} --table '0 {1} thin {2} {3}'; dmsetup suspend "
                               "--nolockfs {0}; dmsetup resume {0}",
                               volume.name, volume.sectors, dm_path(volume.pool), volume.thin_id),
          .run = [volume]() { return reload_volume(volume); },
          .undo = {}};
}

Result<void> report(const Host& host, const std::string& name, uint64_t copied) {
  if (host.json) {
    const nlohmann::ordered_json document{
        {"version", 1}, {"name", name}, {"copied", copied}, {"done", true}};
    print_json(document);
  } else {
    fmt::print("{}: {} copied; it needs its image no more\n", name, human_size(copied));
  }
  return {};
}

// Of a hydration that ended between the registry and the device, or after it: the rest.
Result<void> finish(const Host& host, const VolumeRecord& volume) {
  RegistryStore store = TRY(open_registry(host));
  std::vector<Step> steps;
  if (TRY(is_active(volume))) {
    const DmTable wanted = TRY(volume_table(volume));
    if (TRY(dm_table(volume.name)) != wanted.targets) steps.push_back(drop_step(volume));
  }
  for (const std::string& image : unused_images(store.get())) {
    append_steps(steps, release_image_steps(host, store, image));
  }
  TRY(perform(host, steps));
  return host.dry_run ? Result<void>{} : report(host, volume.name, 0);
}

Result<void> show_plan(const Host& host, const std::shared_ptr<Hydrate>& hydrate,
                       const VolumeRecord& volume, std::vector<Step> first) {
  append_steps(first, copy_steps(hydrate, volume));
  first.push_back(record_step(hydrate, volume));
  first.push_back(drop_step(volume));
  append_steps(first, release_image_steps(host, *hydrate->store, volume.image));
  return perform(host, first);
}

}  // namespace

Result<void> hydrate_command(const Host& host, const HydrateArguments& arguments) {
  const auto hydrate =
      std::make_shared<Hydrate>(Hydrate{host, HydrationRun(host, arguments), std::nullopt});
  hydrate->store.emplace(TRY(open_registry(host)));
  const VolumeRecord volume = TRY(find_volume(hydrate->store->get(), arguments.name));
  std::vector<Step> first;
  if (!TRY(is_active(volume))) first.push_back(activate_volume_step(host, volume.name));
  if (host.dry_run && !volume.image.empty()) return show_plan(host, hydrate, volume, first);
  hydrate->store.reset();
  if (volume.image.empty()) return finish(host, volume);

  TRY(perform(host, first));
  TRY(perform(host, copy_steps(hydrate, volume)));
  hydrate->store.emplace(TRY(open_registry(host)));
  TRY(perform(host, {record_step(hydrate, volume), drop_step(volume)}));
  // The volume stands on its own now: nothing of what follows is a reason to go back.
  TRY(perform(host, release_image_steps(host, *hydrate->store, volume.image)));
  return report(host, volume.name, hydrate->run.copied_bytes());
}

}  // namespace underlay::thin
