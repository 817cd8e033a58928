// underlay-nbd --sandbox-test: tries, from inside the cage, what must not be possible there.
#pragma once

#include <ostream>

#include "io/error.h"
#include "server/cage.h"

namespace underlay {

// Enters the cage of `plan` in a process of its own, which prints a line for each attempt. Fails
// when one of them succeeded, or when what serving needs did not. REQUIRES: one thread.
Result<void> test_cage(const CagePlan& plan, std::ostream& out);

}  // namespace underlay
