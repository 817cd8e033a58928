#include "tools/thin/pool_removal.h"

#include <unistd.h>

#include <cerrno>
#include <vector>

#include "tools/thin/block_device.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/output.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/shell_words.h"
#include "tools/thin/thin_pool.h"
#include "tools/thin/transaction.h"

namespace underlay::thin {
namespace {

Result<void> delete_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return in_file(fail_errno(errno, "deleting the pool's file"), path);
  }
  return {};
}

Result<void> clear_pool(RegistryStore& store, const PoolRecord& pool) {
  const auto info = TRY(dm_info(pool.name));
  // A device of that name with another UUID is somebody else's.
  if (info && info->uuid == pool.uuid) TRY(deactivate_pool(pool));
  TRY(erase_pool(pool));
  return drop_pool(store, pool.name);
}

}  // namespace

Result<void> erase_pool(const PoolRecord& pool) {
  if (pool.on_files) {
    TRY(delete_file(pool.metadata));
    return delete_file(pool.data);
  }
  const auto is_pool = has_thin_pool_superblock(pool.metadata);
  if (!is_pool) {
    return is_pool.error().kind == ErrorKind::kNotFound ? Result<void>() : Failure(is_pool.error());
  }
  // Whatever else stands there now was not made by us.
  return *is_pool ? zero_start(pool.metadata, kMetadataBlock) : Result<void>();
}

std::string erase_pool_words(const PoolRecord& pool) {
  if (pool.on_files) return shell_words(std::vector<std::string>{"rm", pool.metadata, pool.data});
  return shell_words(std::vector<std::string>{"dd", "if=/dev/zero", "of=" + pool.metadata,
                                              "bs=4096", "count=1", "oflag=direct"});
}

Result<RegistryStore> open_pool_registry(const Host& host) {
  RegistryStore store = TRY(open_registry(host));
  if (host.dry_run) return store;
  const Registry before = store.get();
  for (const PoolRecord& pool : before.pools) {
    if (pool.state == PoolState::kReady) continue;
    if (const auto cleared = clear_pool(store, pool); !cleared) {
      // Not in the way of what is to be done with other pools.
      warn(
          fmt::format("pool '{}' was only partly made or removed, and cannot be cleared away: "
                      "{}",
                      pool.name, cleared.error().to_string()));
    }
  }
  return store;
}

Result<void> write_pool(RegistryStore& store, const PoolRecord& pool) {
  Registry next = store.get();
  if (PoolRecord* const record = next.pool(pool.name)) {
    *record = pool;
  } else {
    next.pools.push_back(pool);
  }
  return store.write(std::move(next));
}

Result<void> drop_pool(RegistryStore& store, const std::string& name) {
  Registry next = store.get();
  std::erase_if(next.pools, [&](const PoolRecord& pool) { return pool.name == name; });
  return store.write(std::move(next));
}

}  // namespace underlay::thin
