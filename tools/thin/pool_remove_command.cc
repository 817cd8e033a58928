#include <algorithm>
#include <memory>

#include "tools/thin/device_mapper.h"
#include "tools/thin/names.h"
#include "tools/thin/pool_commands.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/pool_removal.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

// A volume is data that somebody may miss, so it is removed by its own name.
Result<void> check_no_volumes(const Registry& registry, const std::string& pool) {
  std::string names;
  for (const VolumeRecord& volume : registry.volumes) {
    if (volume.pool == pool) names += (names.empty() ? "" : ", ") + volume.name;
  }
  if (names.empty()) return {};
  return fail(ErrorKind::kUsage, "pool '{}' has volumes: {}: 'underlay-thin remove' them first",
              pool, names);
}

// What the registry does not know may be another registry's.
Result<void> check_no_other_volumes(const PoolRecord& pool) {
  const bool was_active = TRY(dm_info(pool.name)).has_value();
  TRY(activate_pool(pool));
  auto metadata = active_metadata_path(pool.name);
  auto ids = metadata ? pool_thin_ids(pool.name, *metadata)
                      : Result<std::vector<uint32_t>>(Failure(metadata.error()));
  if (!was_active) TRY(deactivate_pool(pool));
  if (!ids) return Failure(std::move(ids).error());
  if (ids->empty()) return {};
  return fail(ErrorKind::kUsage, "it has {} thin volumes that the registry does not know",
              ids->size());
}

std::vector<Step> removal_steps(RegistryStore& store, const PoolRecord& pool) {
  // Once something is erased there is only one way: forward, now or by the next command.
  const auto erasing = std::make_shared<bool>(false);
  PoolRecord going = pool;
  going.state = PoolState::kRemoving;
  return {{.name = "record-removal",
           .words = fmt::format("# registry: pool {} is being removed", pool.name),
           .run = [&store, going]() { return write_pool(store, going); },
           .undo = [&store, pool, erasing]() -> Result<void> {
             return *erasing ? Result<void>() : write_pool(store, pool);
           }},
          {.name = "remove-device",
           .words = "dmsetup remove " + pool.name,
           .run = [pool]() { return deactivate_pool(pool); },
           .undo = {}},
          {.name = "erase-pool",
           .words = erase_pool_words(pool),
           .run =
               [pool, erasing]() {
                 *erasing = true;
                 return erase_pool(pool);
               },
           .undo = {}},
          {.name = "drop-record",
           .words = fmt::format("# registry: no pool {}", pool.name),
           .run = [&store, name = pool.name]() { return drop_pool(store, name); },
           .undo = {}}};
}

}  // namespace

Result<void> pool_remove_command(const Host& host, const PoolRemoveArguments& arguments) {
  const Registry before = TRY(read_registry(host.state_dir));
  RegistryStore store = TRY(open_pool_registry(host));
  // A removal that had been interrupted has just been finished.
  if (before.pool(arguments.name) != nullptr && store.get().pool(arguments.name) == nullptr) {
    return {};
  }
  const PoolRecord pool = TRY(find_pool(store.get(), arguments.name));
  TRY(check_no_volumes(store.get(), pool.name));
  if (!arguments.force && !host.dry_run && pool.state == PoolState::kReady) {
    if (auto checked = check_no_other_volumes(pool); !checked) {
      Error error = std::move(checked).error();
      error.message += "; --force removes the pool nonetheless";
      return with_context(std::move(error), fmt::format("pool '{}': ", pool.name));
    }
  }
  return perform(host, removal_steps(store, pool));
}

}  // namespace underlay::thin
