// fsck: is everything as the registry says, and what can be put right?
#pragma once

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

struct FsckArguments {
  bool repair = false;
};

// Prints one line for each problem. Without `repair` it changes nothing. With it, problems are
// repaired that can be without losing data; a thin id that no volume knows is never deleted. What
// a problem hid is found in another round. Fails when a problem is left.
Result<void> fsck_command(const Host& host, const FsckArguments& arguments);

}  // namespace underlay::thin
