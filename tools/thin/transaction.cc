#include "tools/thin/transaction.h"

#include <memory>

#include "tools/thin/names.h"
#include "tools/thin/output.h"
#include "tools/thin/suspend_guard.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

void erase_volume(Registry& registry, const std::string& name) {
  std::erase_if(registry.volumes, [&](const VolumeRecord& volume) { return volume.name == name; });
}

Result<PoolRecord> pool_without_pending(const RegistryStore& store, const std::string& name) {
  PoolRecord pool = TRY(find_pool(store.get(), name));
  if (pool.pending) {
    return fail(ErrorKind::kUsage,
                "pool {}: a change of volume {} was interrupted and could not be completed: run "
                "'underlay-thin fsck'",
                name, pool.pending->volume);
  }
  return pool;
}

// The registry once the pool's metadata is at from + 1.
Result<void> commit_record(RegistryStore& store, const std::string& pool_name) {
  Registry next = store.get();
  PoolRecord* const pool = next.pool(pool_name);
  if (pool->pending->kind == Pending::Kind::kRemove) erase_volume(next, pool->pending->volume);
  pool->transaction_id = pool->pending->from + 1;
  pool->pending.reset();
  return store.write(std::move(next));
}

Result<void> drop_pending(RegistryStore& store, const std::string& pool_name) {
  Registry next = store.get();
  PoolRecord* const pool = next.pool(pool_name);
  if (pool->pending->kind != Pending::Kind::kRemove) erase_volume(next, pool->pending->volume);
  pool->pending.reset();
  return store.write(std::move(next));
}

Result<void> delete_if_there(const std::string& pool, uint32_t thin_id) {
  auto deleted = pool_delete(pool, thin_id);
  if (!deleted && deleted.error().kind != ErrorKind::kNotFound) return deleted;
  return {};
}

// `change` makes the registry with the pending change of the one that is there when it runs.
Step record_step(RegistryStore& store, const std::string& pool,
                 std::function<void(Registry&)> change, std::string words,
                 std::shared_ptr<const bool> keep_pending) {
  return {.name = "record",
          .words = std::move(words),
          .run =
              [&store, change = std::move(change)]() {
                Registry next = store.get();
                change(next);
                return store.write(std::move(next));
              },
          .undo = [&store, pool, keep_pending = std::move(keep_pending)]() -> Result<void> {
            if (keep_pending != nullptr && *keep_pending) return {};
            return drop_pending(store, pool);
          }};
}

Step commit_pool_step(const std::string& pool, uint64_t from, bool may_go_back) {
  Step step{.name = "commit-pool",
            .words = message_words(pool, fmt::format("set_transaction_id {} {}", from, from + 1)),
            .run = [pool, from]() { return pool_set_transaction(pool, from, from + 1); },
            .undo = {}};
  if (may_go_back) {
    step.undo = [pool, from]() { return pool_set_transaction(pool, from + 1, from); };
  }
  return step;
}

Step commit_record_step(RegistryStore& store, const std::string& pool, std::string words) {
  return {.name = "commit-record",
          .words = std::move(words),
          .run = [&store, pool]() { return commit_record(store, pool); },
          .undo = {}};
}

Result<uint32_t> choose_thin_id(const RegistryStore& store, const std::string& name) {
  const PoolRecord pool = TRY(pool_without_pending(store, name));
  constexpr uint32_t kMostThinIds = 1u << 24;  // of the kernel: 24 bits
  if (pool.next_thin_id >= kMostThinIds) {
    return fail(ErrorKind::kLimit, "pool {}: all {} thin ids have been used: make another pool",
                name, kMostThinIds);
  }
  return pool.next_thin_id;
}

void add_pending(Registry& registry, const VolumeRecord& volume, Pending::Kind kind) {
  registry.volumes.push_back(volume);
  PoolRecord* const pool = registry.pool(volume.pool);
  pool->next_thin_id = volume.thin_id + 1;
  pool->pending = Pending{.kind = kind, .from = pool->transaction_id, .volume = volume.name};
}

std::string volume_words(const VolumeRecord& volume) {
  return fmt::format("# registry: volume {} is thin id {} of {}", volume.name, volume.thin_id,
                     volume.pool);
}

// The steps around the message that makes a volume.
PlannedVolume plan_new(RegistryStore& store, const VolumeRecord& volume, Pending::Kind kind,
                       std::vector<Step> message) {
  const uint64_t from = store.get().pool(volume.pool)->transaction_id;
  PlannedVolume plan{.record = volume, .steps = {}};
  plan.steps.push_back(record_step(
      store, volume.pool, [volume, kind](Registry& next) { add_pending(next, volume, kind); },
      volume_words(volume) + ", not yet committed", nullptr));
  for (Step& step : message) plan.steps.push_back(std::move(step));
  plan.steps.push_back(commit_pool_step(volume.pool, from, /*may_go_back=*/true));
  plan.steps.push_back(commit_record_step(store, volume.pool, volume_words(volume)));
  return plan;
}

}  // namespace

Result<PlannedVolume> plan_create(RegistryStore& store, VolumeRecord volume) {
  volume.thin_id = TRY(choose_thin_id(store, volume.pool));
  const std::string pool = volume.pool;
  const uint32_t id = volume.thin_id;
  const Step create{.name = "create-thin",
                    .words = message_words(pool, fmt::format("create_thin {}", id)),
                    .run = [pool, id]() { return pool_create_thin(pool, id); },
                    .undo = [pool, id]() { return pool_delete(pool, id); }};
  return plan_new(store, volume, Pending::Kind::kCreate, {create});
}

Result<PlannedVolume> plan_snapshot(RegistryStore& store, const VolumeRecord& source,
                                    VolumeRecord volume, bool source_is_active) {
  volume.thin_id = TRY(choose_thin_id(store, volume.pool));
  const std::string pool = volume.pool;
  const uint32_t id = volume.thin_id;
  const uint32_t origin = source.thin_id;
  const Step snapshot{
      .name = "create-snapshot",
      .words = message_words(pool, fmt::format("create_snap {} {}", id, origin)),
      .run = [pool, id, origin]() { return pool_create_snapshot(pool, id, origin); },
      .undo = [pool, id]() { return pool_delete(pool, id); }};
  std::vector<Step> message;
  if (!source_is_active) {
    message.push_back(snapshot);
  } else {
    auto guard = std::make_shared<std::optional<SuspendGuard>>();
    const auto resume = [guard]() -> Result<void> {
      return guard->has_value() ? (*guard)->resume() : Result<void>{};
    };
    message.push_back({.name = "suspend-source",
                       .words = "dmsetup suspend " + source.name,
                       .run = [guard, name = source.name]() -> Result<void> {
                         guard->emplace(TRY(SuspendGuard::suspend(name, Flush::kYes)));
                         return {};
                       },
                       .undo = resume});
    message.push_back(snapshot);
    message.push_back({.name = "resume-source",
                       .words = "dmsetup resume " + source.name,
                       .run = resume,
                       .undo = {}});
  }
  return plan_new(store, volume, Pending::Kind::kSnapshot, std::move(message));
}

Result<std::vector<Step>> plan_remove(RegistryStore& store, const VolumeRecord& volume) {
  const uint64_t from = TRY(pool_without_pending(store, volume.pool)).transaction_id;
  const auto deleted = std::make_shared<bool>(false);
  const auto mark = [from, volume](Registry& next) {
    next.pool(volume.pool)->pending =
        Pending{.kind = Pending::Kind::kRemove, .from = from, .volume = volume.name};
  };
  std::vector<Step> steps;
  steps.push_back(record_step(store, volume.pool, mark,
                              fmt::format("# registry: volume {} is being removed", volume.name),
                              deleted));
  steps.push_back({.name = "delete-thin",
                   .words = message_words(volume.pool, fmt::format("delete {}", volume.thin_id)),
                   .run = [deleted, pool = volume.pool, id = volume.thin_id]() -> Result<void> {
                     TRY(delete_if_there(pool, id));
                     *deleted = true;
                     return {};
                   },
                   .undo = {}});
  steps.push_back(commit_pool_step(volume.pool, from, /*may_go_back=*/false));
  steps.push_back(
      commit_record_step(store, volume.pool, fmt::format("# registry: no volume {}", volume.name)));
  return steps;
}

Result<void> recover_pool(RegistryStore& store, const std::string& name) {
  const PoolRecord pool = *store.get().pool(name);
  const auto device = TRY(dm_info(name));
  if (!device || device->uuid != pool.uuid) {
    return fail(ErrorKind::kUsage, "pool {}: {} is {}", name, dm_path(name),
                device ? "the device of another pool: remove or rename it" : "not active");
  }
  const uint64_t at = TRY(pool_status(name)).transaction_id;
  const bool behind_change = pool.pending && at == pool.pending->from + 1;
  if (at != pool.transaction_id && !behind_change) {
    return fail(ErrorKind::kMalformed,
                "pool {}: its transaction id is {}, the registry's {}: something else has changed "
                "it; run 'underlay-thin fsck' to see what differs",
                name, at, pool.transaction_id);
  }
  if (!pool.pending) return {};
  if (behind_change) return commit_record(store, name);
  TRY(delete_if_there(name, store.get().volume(pool.pending->volume)->thin_id));
  if (pool.pending->kind != Pending::Kind::kRemove) return drop_pending(store, name);
  TRY(pool_set_transaction(name, at, at + 1));
  return commit_record(store, name);
}

Result<RegistryStore> open_registry(const Host& host) {
  RegistryStore store = TRY(RegistryStore::open(host.state_dir));
  if (host.dry_run) return store;
  const Registry before = store.get();
  for (const PoolRecord& pool : before.pools) {
    if (!pool.pending || !TRY(dm_info(pool.name))) continue;
    if (const auto recovered = recover_pool(store, pool.name); !recovered) {
      // Not in the way of other pools; what needs this one tries again, and fails.
      warn(recovered.error().to_string());
    }
  }
  return store;
}

}  // namespace underlay::thin
