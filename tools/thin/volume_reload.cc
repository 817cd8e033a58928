#include "tools/thin/volume_reload.h"

#include "tools/thin/bounded_suspend.h"
#include "tools/thin/thin_pool.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {

Result<DmTable> volume_table(const VolumeRecord& volume) {
  const auto pool = TRY(dm_info(volume.pool));
  if (!pool) {
    return fail(ErrorKind::kUsage, "{}: its pool {} is not active", volume.name, volume.pool);
  }
  return DmTable{.name = volume.name,
                 .uuid = volume.uuid,
                 .targets = {thin_target(volume, pool->number(), TRY(origin_number(volume)))},
                 .read_only = false,
                 .internal = false};
}

Result<void> reload_volume(const VolumeRecord& volume) {
  if (!TRY(is_active(volume))) return {};
  const DmTable table = TRY(volume_table(volume));
  // The guard resumes the device if this process is killed in between.
  SuspendGuard guard = TRY(suspend_within(volume.name, kSuspendLimit));
  TRY(dm_reload(table, Flush::kDrain));
  return guard.resume();
}

}  // namespace underlay::thin
