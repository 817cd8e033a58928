// pool create, list, status, grow, remove.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/error.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

struct PoolCreateArguments {
  std::string name;
  // Either two block devices,
  std::string data;
  std::string metadata;
  // or a folder for two sparse files, and the size of the data in bytes.
  std::string folder;
  std::optional<uint64_t> size;
  uint64_t block_size = 64 << 10;  // bytes: 64 KiB to 1 GiB, a multiple of 64 KiB
  unsigned low_water_percent = 10;
  Discards discards = Discards::kIgnore;
  // Takes devices that hold something, and metadata that is smaller than it should be.
  bool force = false;
};
// Refuses devices that are in use, read-only, or hold something.
Result<void> pool_create_command(const Host& host, const PoolCreateArguments& arguments);

Result<void> pool_list_command(const Host& host);

struct PoolStatusArguments {
  std::string name;
};
Result<void> pool_status_command(const Host& host, const PoolStatusArguments& arguments);

struct PoolGrowArguments {
  std::string name;
  std::optional<uint64_t> size;  // bytes of data, for files; devices are taken as large as they are
};
// Also brings a pool that had run out of space back to life.
Result<void> pool_grow_command(const Host& host, const PoolGrowArguments& arguments);

struct PoolRemoveArguments {
  std::string name;
  // Also a pool that cannot be activated, or that has thin volumes which the registry does not
  // know. Volumes that it knows have to be removed by name first, always.
  bool force = false;
};
// Deletes the pool's files; on devices, only what makes them a pool.
Result<void> pool_remove_command(const Host& host, const PoolRemoveArguments& arguments);

}  // namespace underlay::thin
