// What a server with these options needs once it serves.
#pragma once

#include "server/cage.h"
#include "server/options.h"

namespace underlay {

// Is what is served changed while the server runs: by --control, or by --config and SIGHUP?
bool is_live(const Options& options);

// The folders are without symbolic links.
CagePlan cage_plan(const Options& options);

}  // namespace underlay
