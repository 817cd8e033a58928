#include "tools/thin/volume_commands.h"

#include <fmt/format.h>

#include "tools/thin/activation.h"
#include "tools/thin/attachment.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/image_release.h"
#include "tools/thin/names.h"
#include "tools/thin/origin.h"
#include "tools/thin/output.h"
#include "tools/thin/random_id.h"
#include "tools/thin/server_process.h"
#include "tools/thin/transaction.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {
namespace {

// Bytes of the new volume: at least the image's, so that nothing of a template is cut off.
Result<uint64_t> volume_size(const std::optional<uint64_t>& wanted, uint64_t image) {
  if (!wanted) return image;
  if (*wanted < image) {
    return fail(ErrorKind::kUsage,
                "--size {} is smaller than the image ({} bytes), whose end would be cut off",
                *wanted, image);
  }
  if (*wanted % kSectorBytes != 0) {
    return fail(ErrorKind::kUsage, "--size {} is no multiple of {} bytes", *wanted, kSectorBytes);
  }
  return *wanted;
}

// Freezing the file system on a volume takes as long as what it reads and writes: for ever, or
// until the dead timeout, when nobody answers for the image.
Result<void> check_server_lives(const Host& host, const ImageRecord& image) {
  if (image.is_remote() || !TRY(find_attachment(image)) || TRY(running_server(host, image.id))) {
    return {};
  }
  return fail(ErrorKind::kUsage,
              "the server of {} is gone, and a snapshot would wait for it: 'underlay-thin watch "
              "--once' starts it again",
              image.location);
}

}  // namespace

Result<void> make_volume(const Host& host, const CreateArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  TRY(check_name_is_free(store.get(), arguments.name, "volume"));
  TRY(find_pool(store.get(), arguments.pool));
  const ChosenImage chosen = TRY(choose_image(store.get(), arguments.image));
  const uint64_t bytes = TRY(volume_size(arguments.size, chosen.record.size));
  TRY(bring_up_pool(host, store, arguments.pool));

  const std::string uuid = kDmUuidPrefix + ("volume-" + TRY(random_uuid()));
  PlannedVolume planned = TRY(plan_create(store, VolumeRecord{.name = arguments.name,
                                                              .uuid = uuid,
                                                              .pool = arguments.pool,
                                                              .thin_id = 0,
                                                              .sectors = bytes / kSectorBytes,
                                                              .image = chosen.record.id,
                                                              .snapshot_of = ""}));
  std::vector<Step> steps = record_image_steps(store, chosen);
  append_steps(steps, chosen.plan ? TRY(origin_steps(host, chosen.record, chosen.plan))
                                  : TRY(bring_up_origin_steps(host, chosen.record)));
  append_steps(steps, std::move(planned.steps));
  steps.push_back(activate_step(planned.record));
  return perform(host, steps);
}

Result<void> make_snapshot(const Host& host, const SnapshotArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  TRY(check_name_is_free(store.get(), arguments.name, "volume"));
  const std::string pool = TRY(find_volume(store.get(), arguments.source)).pool;
  TRY(bring_up_pool(host, store, pool));
  // The recovery may have taken it back.
  const VolumeRecord source = TRY(find_volume(store.get(), arguments.source));
  const bool source_is_active = TRY(is_active(source));
  if (source_is_active && !source.image.empty()) {
    TRY(check_server_lives(host, *store.get().image(source.image)));
  }
  const std::string uuid = kDmUuidPrefix + ("volume-" + TRY(random_uuid()));

  PlannedVolume planned = TRY(plan_snapshot(store, source,
                                            VolumeRecord{.name = arguments.name,
                                                         .uuid = uuid,
                                                         .pool = source.pool,
                                                         .thin_id = 0,
                                                         .sectors = source.sectors,
                                                         .image = source.image,
                                                         .snapshot_of = source.name},
                                            source_is_active));
  std::vector<Step> steps;
  // An active source has it, and reads it already.
  if (!source.image.empty() && !source_is_active) {
    steps = TRY(bring_up_origin_steps(host, *store.get().image(source.image)));
  }
  append_steps(steps, std::move(planned.steps));
  steps.push_back(activate_step(planned.record));
  return perform(host, steps);
}

Result<void> create_command(const Host& host, const CreateArguments& arguments) {
  TRY(make_volume(host, arguments));
  return host.dry_run ? Result<void>{} : report_device(host, dm_path(arguments.name));
}

Result<void> snapshot_command(const Host& host, const SnapshotArguments& arguments) {
  TRY(make_snapshot(host, arguments));
  return host.dry_run ? Result<void>{} : report_device(host, dm_path(arguments.name));
}

Result<void> remove_command(const Host& host, const RemoveArguments& arguments) {
  RegistryStore store = TRY(open_registry(host));
  const std::string pool = TRY(find_volume(store.get(), arguments.name)).pool;
  TRY(bring_up_pool(host, store, pool));
  const VolumeRecord volume = TRY(find_volume(store.get(), arguments.name));
  std::vector<Step> steps;
  if (TRY(has_device(volume))) steps.push_back(deactivate_step(volume));
  append_steps(steps, TRY(plan_remove(store, volume)));
  std::vector<Step> rest = release_image_steps(host, store, volume.image);
  TRY(perform(host, steps));
  // The volume is gone; what only it needed goes too, and a failure there takes nothing back.
  return perform(host, rest);
}

}  // namespace underlay::thin
