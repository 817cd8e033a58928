// What --repair does.
#pragma once

#include "io/error.h"
#include "tools/thin/fsck_checks.h"
#include "tools/thin/host.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

// Repairs one problem. Fails with kUsage when nothing can be done about it by itself.
Result<void> repair_problem(const Host& host, RegistryStore& store, const FsckProblem& problem);

}  // namespace underlay::thin
