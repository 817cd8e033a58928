// Gives a volume's device the table that its record asks for, while a guest uses it.
#pragma once

#include "io/error.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// The table of the volume's device, with the origin that the record names (which must be active),
// or with none. REQUIRES: the pool is active.
Result<DmTable> volume_table(const VolumeRecord& volume);

// Loads that table in place of the one that is live. The guest's requests wait meanwhile, for a
// millisecond or two; on failure the table before is live. A volume that is not active: nothing.
Result<void> reload_volume(const VolumeRecord& volume);

}  // namespace underlay::thin
