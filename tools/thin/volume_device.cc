#include "tools/thin/volume_device.h"

#include <algorithm>

#include "io/block_device_holders.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/origin.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

std::string table_words(const VolumeRecord& volume) {
  const std::string origin = volume.image.empty() ? "" : dm_path(origin_name(volume.image));
  const DmTarget target = thin_target(volume, dm_path(volume.pool), origin);
  return fmt::format("dmsetup create {} --uuid {} --table '{}'", volume.name, volume.uuid,
                     table_text({target}));
}

// Udev opens a device for a moment when the file system on it is unmounted: dm_remove() waits for
// that, where a mount would only keep it waiting.
bool may_pass(const std::vector<std::string>& holders) {
  return std::ranges::all_of(
      holders, [](const std::string& holder) { return holder.starts_with("process "); });
}

Result<void> deactivate(const VolumeRecord& volume) {
  const auto info = TRY(dm_info(volume.name));
  if (!info) return {};
  if (info->uuid != volume.uuid) {
    return fail(ErrorKind::kUsage, "{} is a device of something else (UUID '{}')",
                dm_path(volume.name), printable(info->uuid, 80));
  }
  if (info->open_count > 0) {
    const auto holders = TRY(block_device_holders(dm_path(volume.name)));
    if (!may_pass(holders)) {
      return fail(ErrorKind::kUsage, "{} is in use: {}", dm_path(volume.name),
                  join_holders(holders));
    }
  }
  return dm_remove(volume.name);
}

}  // namespace

Result<std::string> origin_number(const VolumeRecord& volume) {
  if (volume.image.empty()) return std::string();
  const std::string name = origin_name(volume.image);
  const auto info = TRY(dm_info(name));
  if (!info || !info->has_table) {
    return fail(ErrorKind::kUsage,
                "{}: its origin {} is not active, and without it the image's data would read as "
                "zeros: 'underlay-thin activate {}' brings both",
                volume.name, dm_path(name), volume.name);
  }
  return info->number();
}

Result<DmTable> volume_table(const VolumeRecord& volume) {
  const auto pool = TRY(dm_info(volume.pool));
  if (!pool) {
    return fail(ErrorKind::kUsage, "{}: its pool {} is not active", volume.name, volume.pool);
  }
  const std::string origin = TRY(origin_number(volume));
  return DmTable{.name = volume.name,
                 .uuid = volume.uuid,
                 .targets = {thin_target(volume, pool->number(), origin)},
                 .read_only = false,
                 .internal = false};
}

Step activate_step(const VolumeRecord& volume) {
  return {.name = "activate",
          .words = table_words(volume),
          .run = [volume]() -> Result<void> { return dm_create(TRY(volume_table(volume))); },
          .undo = [volume]() { return deactivate(volume); }};
}

Step deactivate_step(const VolumeRecord& volume) {
  return {.name = "deactivate",
          .words = "dmsetup remove " + volume.name,
          .run = [volume]() { return deactivate(volume); },
          .undo = [volume]() -> Result<void> { return dm_create(TRY(volume_table(volume))); }};
}

Result<bool> is_active(const VolumeRecord& volume) {
  const auto info = TRY(dm_info(volume.name));
  return info && info->uuid == volume.uuid && info->has_table;
}

Result<bool> has_device(const VolumeRecord& volume) {
  const auto info = TRY(dm_info(volume.name));
  return info && info->uuid == volume.uuid;
}

Result<bool> image_is_used(const Registry& registry, const std::string& image_id) {
  for (const VolumeRecord& volume : registry.volumes) {
    if (volume.image != image_id) continue;
    if (TRY(has_device(volume))) return true;
  }
  return false;
}

}  // namespace underlay::thin
