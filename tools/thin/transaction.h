// Changes a pool's metadata and the registry as one, over crashes.
//
//   registry: pending, from N  ->  pool: message  ->  pool: transaction id N + 1  ->  registry:
//   done
//
// Each arrow is durable before the next. A crash leaves one of these states, and recovery goes back
// (create, snapshot) or forward (remove) as long as the pool says N, and forward from N + 1 on.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"
#include "tools/thin/registry_store.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

// Steps "record", "create-thin", "commit-pool", "commit-record". The volume's thin id is chosen
// here. The image's record must be there when they run. REQUIRES: the pool is active when they run.
struct PlannedVolume {
  VolumeRecord record;
  std::vector<Step> steps;
};
Result<PlannedVolume> plan_create(RegistryStore& store, VolumeRecord volume);

// Steps "record", "suspend-source", "create-snapshot", "resume-source", "commit-pool",
// "commit-record"; without the two about the source when it is not active.
Result<PlannedVolume> plan_snapshot(RegistryStore& store, const VolumeRecord& source,
                                    VolumeRecord volume, bool source_is_active);

// Steps "record", "delete-thin", "commit-pool", "commit-record". Once the thin id is deleted there
// is no way back: a failure later leaves the removal pending. REQUIRES: the volume is not active.
Result<std::vector<Step>> plan_remove(RegistryStore& store, const VolumeRecord& volume);

// Takes the lock and, unless this is a dry run, brings every active pool with a pending change to a
// state without one. A pool that is not active is left for the command that activates it.
Result<RegistryStore> open_registry(const Host& host);

// The same for one pool that has just been activated. Fails when the pool's transaction id is
// neither the registry's nor the one behind a pending change: something else changed the pool.
Result<void> recover_pool(RegistryStore& store, const std::string& pool);

}  // namespace underlay::thin
