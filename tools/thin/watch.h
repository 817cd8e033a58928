// watch: keeps attached images connected.
#pragma once

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

struct WatchArguments {
  bool once = false;  // one pass over all attached images, then end
};
// Hears of connections and servers that died, starts servers again, dials and gives the kernel new
// connections, until SIGTERM or SIGINT. The servers stay. One line for each action on standard
// error. With `once`: fails when an image could not be reconnected.
Result<void> watch_command(const Host& host, const WatchArguments& arguments);

}  // namespace underlay::thin
