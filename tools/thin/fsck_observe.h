// Finds out what fsck compares.
#pragma once

#include "io/error.h"
#include "tools/thin/fsck_state.h"
#include "tools/thin/host.h"

namespace underlay::thin {

// Everything that there is now. Changes nothing, but that an active pool takes a snapshot of its
// metadata and drops it again. What cannot be looked at (a pool that is not active, files that are
// gone) is left out or named in the state. REQUIRES: the registry is locked.
Result<FsckState> observe(const Host& host, const Registry& registry);

}  // namespace underlay::thin
