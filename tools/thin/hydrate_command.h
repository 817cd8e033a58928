// hydrate: a volume gets its own copy of all that it reads from its image, and lets go of it.
#pragma once

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/hydration_run.h"

namespace underlay::thin {

// Copies what the image has data in and the volume has not written yet, then takes the image away
// from under it; server and nbd device go when nobody else needs them. The volume is in use
// meanwhile, or is activated for it. Each snapshot of the volume is a volume of its own and keeps
// the image until it is hydrated itself.
//
// Killed at any point, it goes on when run again: what was copied is found in the pool's metadata.
// The image goes in this order, each durable before the next: every block is mapped and on disk;
// the registry says that there is no image; the device's table names no origin; origin and
// attachment go. So a volume is never without its origin while it needs it, whoever activates it.
Result<void> hydrate_command(const Host& host, const HydrateArguments& arguments);

}  // namespace underlay::thin
