// Making what a pool consists of go away, over crashes.
//
//   create:  record "creating"  ->  files or zeroed metadata  ->  device  ->  record "ready"
//   remove:  record "removing"  ->  no device  ->  no files or no superblock  ->  no record
//
// Each arrow is durable before the next. So a record that is not "ready" while nobody holds the
// registry was left by a process that died, and both go the same way: to no pool.
#pragma once

#include <string>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

// Deletes the pool's files. On devices, makes the metadata no longer look like a pool's, so that it
// is not taken for one. Nothing to do for what is not there (any more). REQUIRES: not active.
Result<void> erase_pool(const PoolRecord& pool);
std::string erase_pool_words(const PoolRecord& pool);

// open_registry(), and unless this is a dry run without pools that are not ready; one that cannot
// be cleared away is said in a warning.
Result<RegistryStore> open_pool_registry(const Host& host);

// The record of a pool, replaced or added; or dropped.
Result<void> write_pool(RegistryStore& store, const PoolRecord& pool);
Result<void> drop_pool(RegistryStore& store, const std::string& name);

}  // namespace underlay::thin
