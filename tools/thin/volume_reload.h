// Gives a volume's device the table that its record asks for, while a guest uses it.
#pragma once

#include "io/error.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// Loads volume_table() in place of the one that is live. The guest's requests wait meanwhile, for a
// millisecond or two; on failure the table before is live. A volume that is not active: nothing.
Result<void> reload_volume(const VolumeRecord& volume);

}  // namespace underlay::thin
