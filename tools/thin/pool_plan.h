// What a new pool is to consist of, checked before anything is changed.
#pragma once

#include <cstdint>
#include <string>

#include "io/error.h"
#include "tools/thin/pool_commands.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

struct PoolPlan {
  PoolRecord record;  // kCreating
  // Bytes.
  uint64_t data_size = 0;
  uint64_t metadata_size = 0;
  std::string warning;  // "" = none
};

// REQUIRES: root, for devices.
Result<PoolPlan> plan_pool(const PoolCreateArguments& arguments, const Registry& registry);

// Pool blocks left when the kernel is to say that the pool gets full.
uint64_t low_water_blocks(uint64_t data_size, uint64_t block_size, unsigned percent);

}  // namespace underlay::thin
