#include "tools/thin/volume_reload.h"

#include "tools/thin/bounded_suspend.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {

Result<void> reload_volume(const VolumeRecord& volume) {
  if (!TRY(is_active(volume))) return {};
  const DmTable table = TRY(volume_table(volume));
  // The guard resumes the device if this process is killed in between.
  SuspendGuard guard = TRY(suspend_within(volume.name, kSuspendLimit));
  TRY(dm_reload(table, Flush::kDrain));
  return guard.resume();
}

}  // namespace underlay::thin
