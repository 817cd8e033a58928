#include "tools/thin/pool_devices.h"

#include <algorithm>
#include <memory>
#include <sstream>

#include "io/block_device_holders.h"
#include "tools/thin/block_device.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

constexpr uint64_t kMappingsPerBlock = 252;  // of 16 bytes, in a block with a header of 64
constexpr uint64_t kMinMetadata = 2 << 20;
// 255 bitmaps of (2^14 - 64) blocks each.
constexpr uint64_t kMaxMetadata = 255 * ((uint64_t{1} << 14) - 64) * kMetadataBlock;

// A file of a pool must have no other user: two loop devices of one file do not see each other's
// caches.
Result<LoopDevice> open_pool_file(const std::string& path) {
  const auto users = TRY(loop_devices_of(path));
  if (!users.empty()) {
    return in_file(fail(ErrorKind::kUsage, "is in use as {}: 'losetup -d {}' frees it",
                        join_holders(users), users.front()),
                   path);
  }
  return open_loop_device(path, /*read_only=*/false);
}

Result<void> check_state(const PoolRecord& pool) {
  const PoolStatus status = TRY(pool_status(pool.name));
  if (status.mode == "fail") {
    return fail(ErrorKind::kIo,
                "pool '{}' has failed (dmesg says why): repair its metadata, {}, with thin_repair",
                pool.name, pool.metadata);
  }
  const uint64_t id = status.transaction_id;
  if (id == pool.transaction_id || (pool.pending && id == pool.pending->from + 1)) return {};
  return fail(ErrorKind::kUsage,
              "pool '{}': its transaction id is {}, the registry expects {}: it was changed by "
              "something else, or the registry is of another time; 'underlay-thin fsck' says more",
              pool.name, id, pool.transaction_id);
}

Result<void> check_is_ours(const PoolRecord& pool, const DmInfo& info) {
  if (info.uuid == pool.uuid) return {};
  return fail(
      ErrorKind::kUsage,
      "{} is another device (its UUID is '{}', that of pool '{}' is '{}'): remove or rename "
      "it",
      dm_path(pool.name), info.uuid, pool.name, pool.uuid);
}

Result<void> start_pool(const PoolRecord& pool) {
  const PoolDevices devices = TRY(open_pool_devices(pool, /*formatted=*/true));
  TRY(dm_create(pool_table(pool, devices)));
  auto good = check_state(pool);
  if (good) return {};
  Error error = std::move(good).error();
  if (const auto removed = dm_remove(pool.name); !removed) {
    error.message += "; " + removed.error().to_string();
  }
  return Failure(std::move(error));
}

}  // namespace

uint64_t metadata_bytes(uint64_t data_bytes, uint64_t block_bytes) {
  const uint64_t blocks = data_bytes / block_bytes;
  // Twice, because the nodes of a tree are half full on average; and a node for each volume.
  const uint64_t nodes = 2 * blocks / kMappingsPerBlock + kExpectedVolumes + 1;
  return std::clamp(nodes * kMetadataBlock, kMinMetadata, kMaxMetadata);
}

Result<PoolDevices> open_pool_devices(const PoolRecord& pool, bool formatted) {
  PoolDevices devices;
  if (pool.on_files) {
    devices.metadata_loop = TRY(open_pool_file(pool.metadata));
    devices.data_loop = TRY(open_pool_file(pool.data));
    devices.metadata_path = devices.metadata_loop->path;
    devices.data_path = devices.data_loop->path;
  } else {
    devices.metadata_path = pool.metadata;
    devices.data_path = pool.data;
  }
  devices.metadata_number = TRY(block_device_number(devices.metadata_path));
  devices.data_number = TRY(block_device_number(devices.data_path));
  devices.data_sectors = TRY(block_device_size(devices.data_path)) / kSectorBytes;
  devices.data_sectors -= devices.data_sectors % pool.block_sectors;
  if (devices.data_sectors == 0) {
    return in_file(fail(ErrorKind::kUsage, "is smaller than one pool block ({} bytes)",
                        pool.block_sectors * kSectorBytes),
                   pool.data);
  }
  if (formatted && !TRY(has_thin_pool_superblock(devices.metadata_path))) {
    return in_file(fail(ErrorKind::kMalformed,
                        "does not begin as the metadata of a thin pool does: the kernel would take "
                        "it for a new, empty pool '{}'; is it the right device?",
                        pool.name),
                   pool.metadata);
  }
  return devices;
}

Result<ActiveDevices> active_pool_devices(const std::string& pool) {
  const auto targets = TRY(dm_table(pool));
  std::string metadata, data;
  if (targets.size() == 1 && targets[0].type == "thin-pool") {
    std::istringstream(targets[0].params) >> metadata >> data;
  }
  if (data.empty()) {
    return fail(ErrorKind::kUsage, "{} is not an active thin pool", dm_path(pool));
  }
  ActiveDevices devices;
  devices.metadata = TRY(block_device_path(metadata));
  devices.data = TRY(block_device_path(data));
  return devices;
}

Result<std::string> active_metadata_path(const std::string& pool) {
  return TRY(active_pool_devices(pool)).metadata;
}

DmTable pool_table(const PoolRecord& pool, const PoolDevices& devices) {
  return {.name = pool.name,
          .uuid = pool.uuid,
          .targets = {pool_target(pool, devices.metadata_number, devices.data_number,
                                  devices.data_sectors)},
          .read_only = false,
          .internal = true};
}

std::string activate_pool_words(const PoolRecord& pool) {
  const auto device = [&](const std::string& path) {
    return pool.on_files ? "$(losetup -f --show " + path + ")" : path;
  };
  const DmTarget target = pool_target(pool, device(pool.metadata), device(pool.data), 0);
  const std::string size = pool.on_files ? "$(($(stat -c %s " + pool.data + ") / 512))"
                                         : "$(blockdev --getsz " + pool.data + ")";
  return fmt::format("dmsetup create {} --uuid {} --table \"0 {} {} {}\"", pool.name, pool.uuid,
                     size, target.type, target.params);
}

Result<void> activate_pool(const PoolRecord& pool) {
  if (pool.state != PoolState::kReady) {
    return fail(ErrorKind::kUsage,
                "pool '{}' was only partly {}: 'underlay-thin pool remove {}' clears it away",
                pool.name, pool.state == PoolState::kCreating ? "made" : "removed", pool.name);
  }
  const auto info = TRY(dm_info(pool.name));
  if (info) TRY(check_is_ours(pool, *info));
  if (!info || !info->has_table) return start_pool(pool);
  // Suspended: a process that made it larger was killed. What it loaded becomes live.
  if (info->suspended) TRY(dm_resume(pool.name));
  return check_state(pool);
}

Result<void> deactivate_pool(const PoolRecord& pool) {
  const auto info = TRY(dm_info(pool.name));
  if (!info) return {};
  TRY(check_is_ours(pool, *info));
  const auto holders = TRY(block_device_holders(dm_path(pool.name)));
  if (!holders.empty()) {
    return fail(ErrorKind::kUsage, "pool '{}' is in use by {}: deactivate that first", pool.name,
                join_holders(holders));
  }
  return dm_remove(pool.name);
}

std::vector<Step> activate_pool_steps(const PoolRecord& pool) {
  const auto was_active = std::make_shared<bool>(false);
  return {{.name = "activate-pool",
           .words = activate_pool_words(pool),
           .run = [pool, was_active]() -> Result<void> {
             *was_active = TRY(dm_info(pool.name)).has_value();
             return activate_pool(pool);
           },
           .undo = [pool, was_active]() -> Result<void> {
             return *was_active ? Result<void>() : deactivate_pool(pool);
           }}};
}

}  // namespace underlay::thin
