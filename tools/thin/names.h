// Pools and volumes by name. They share /dev/mapper, so a name stands for one of them.
#pragma once

#include <string>

#include "io/error.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// kNotFound, naming the command that lists them.
Result<VolumeRecord> find_volume(const Registry& registry, const std::string& name);
Result<PoolRecord> find_pool(const Registry& registry, const std::string& name);

// kUsage unless a new pool or volume (`what`) can have the name: a valid one, and no device has it.
Result<void> check_name_is_free(const Registry& registry, const std::string& name,
                                const char* what);

}  // namespace underlay::thin
