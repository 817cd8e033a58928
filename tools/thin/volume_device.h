// The device of a volume, /dev/mapper/NAME, and what must be there before it.
#pragma once

#include <vector>

#include "io/error.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

// The step "activate". REQUIRES: pool and origin are active when it runs. Never makes a volume
// without the origin that its record names: it would read zeros in the template's place.
Step activate_step(const VolumeRecord& volume);
// The step "deactivate". Fails, naming the holders, when the volume is in use.
Step deactivate_step(const VolumeRecord& volume);

// The table of the volume's device, with the origin that the record names (which must be active),
// or with none. REQUIRES: the pool is active.
Result<DmTable> volume_table(const VolumeRecord& volume);

// The origin of `volume` ("MAJOR:MINOR", "" when it has none), checked to be of the image's size.
Result<std::string> origin_number(const VolumeRecord& volume);

// Can it be read? One that was left without a live table cannot.
Result<bool> is_active(const VolumeRecord& volume);
// Is there a device of it, be it half made?
Result<bool> has_device(const VolumeRecord& volume);
// Has a volume on this image a device?
Result<bool> image_is_used(const Registry& registry, const std::string& image_id);

}  // namespace underlay::thin
