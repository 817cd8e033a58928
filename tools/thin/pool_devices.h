// The two devices of a pool: finding, checking, making and opening them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/host.h"
#include "tools/thin/loop_device.h"
#include "tools/thin/registry.h"
#include "tools/thin/steps.h"

namespace underlay::thin {

// Thin volumes and snapshots that the size of a pool's metadata is reckoned with.
inline constexpr uint64_t kExpectedVolumes = 1000;

// Metadata for `data_bytes` in blocks of `block_bytes`: thin_metadata_size's rule with
// kExpectedVolumes, at least 2 MiB, at most what the kernel uses (just under 16 GiB). A multiple of
// 4 KiB.
uint64_t metadata_bytes(uint64_t data_bytes, uint64_t block_bytes);

// An active pool needs both devices. Loop devices live while this does, or a table holds them.
struct PoolDevices {
  std::string data_path, metadata_path;
  std::string data_number, metadata_number;
  uint64_t data_sectors = 0;
  std::optional<LoopDevice> data_loop, metadata_loop;
};
// Opens the devices, or makes loop devices of the files. With `formatted`, refuses metadata that
// does not begin with a thin-pool superblock: the kernel would take zeros for a new, empty pool.
Result<PoolDevices> open_pool_devices(const PoolRecord& pool, bool formatted);

// The paths of an active pool's devices, from its table.
struct ActiveDevices {
  std::string metadata, data;
};
Result<ActiveDevices> active_pool_devices(const std::string& pool);
Result<std::string> active_metadata_path(const std::string& pool);

// The pool's table for these devices, as it is now.
DmTable pool_table(const PoolRecord& pool, const PoolDevices& devices);
// A command that a person could activate the pool with.
std::string activate_pool_words(const PoolRecord& pool);

// Activates the pool unless it is active, and checks that its transaction id is the registry's (or
// the next one, with a change pending). A pool whose metadata needs a check is activated, for what
// can still be read. On failure a pool that was not active is not.
Result<void> activate_pool(const PoolRecord& pool);
// Refuses while a volume of it is active. Nothing to do when it is not active.
Result<void> deactivate_pool(const PoolRecord& pool);
std::vector<Step> activate_pool_steps(const PoolRecord& pool);

}  // namespace underlay::thin
