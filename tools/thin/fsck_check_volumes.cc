#include "tools/thin/fsck_check_volumes.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/thin/origin.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

using Problems = std::vector<FsckProblem>;

const DmInfo* info_named(const FsckState& state, const std::string& name) {
  for (const FsckDevice& device : state.devices) {
    if (device.info.name == name) return &device.info;
  }
  return nullptr;
}

void check_transaction(const PoolRecord& pool, const PoolStatus& status, Problems& problems) {
  const bool behind = pool.pending && status.transaction_id == pool.pending->from + 1;
  if (status.transaction_id != pool.transaction_id && !behind) {
    problems.push_back(
        {.what = "transaction-id",
         .text = fmt::format("pool {}: its transaction id is {}, the registry's {}: something else "
                             "has changed it, or the registry is of another time",
                             pool.name, status.transaction_id, pool.transaction_id)});
  } else if (pool.pending) {
    const bool forward = behind || pool.pending->kind == Pending::Kind::kRemove;
    problems.push_back(
        {.what = "pending",
         .text = fmt::format("pool {}: a change of volume {} was interrupted, and "
                             "is to be {}",
                             pool.name, pool.pending->volume, forward ? "completed" : "taken back"),
         .repair = FsckRepair::kRecover,
         .subject = pool.name});
  }
}

void check_thin_ids(const FsckState& state, const PoolRecord& pool,
                    const std::vector<uint32_t>& ids, Problems& problems) {
  std::vector<uint32_t> known;
  for (const VolumeRecord& volume : state.registry.volumes) {
    if (volume.pool != pool.name) continue;
    known.push_back(volume.thin_id);
    const bool there = std::find(ids.begin(), ids.end(), volume.thin_id) != ids.end();
    if (there || is_pending(state.registry, volume)) continue;
    problems.push_back({.what = "no-thin-id",
                        .text = fmt::format("volume {}: pool {} has no thin id {}: what was "
                                            "written to it is lost ('underlay-thin remove {}' "
                                            "forgets it)",
                                            volume.name, pool.name, volume.thin_id, volume.name)});
  }
  for (const uint32_t id : ids) {
    if (std::find(known.begin(), known.end(), id) != known.end()) continue;
    problems.push_back(
        {.what = "unknown-thin-id",
         .text =
             fmt::format("pool {}: no volume has the thin id {}; it is never deleted by "
                         "itself: {}",
                         pool.name, id, message_words(pool.name, fmt::format("delete {}", id)))});
  }
}

void check_origin_table(const FsckState& state, const ImageRecord& image, Problems& problems) {
  for (const FsckDevice& device : state.devices) {
    if (device.info.name != origin_name(image.id) || device.table.empty()) continue;
    const auto share = share_of(device.table);
    const std::string path = dm_path(device.info.name);
    if (!share || share->sectors() * kSectorBytes != image.size) {
      problems.push_back({.what = "origin-table",
                          .text = fmt::format("{}: its table is not one for {} ({} bytes): "
                                              "deactivate the volumes on it, and activate them",
                                              path, image.location, image.size)});
      continue;
    }
    const bool served = share->server.empty() ||
                        std::any_of(state.nbd.begin(), state.nbd.end(), [&](const FsckNbd& nbd) {
                          return nbd.number == share->server && nbd.device.backend == image.backend;
                        });
    if (served) continue;
    problems.push_back({.what = "origin-nbd",
                        .text = fmt::format("{} reads from the device {}, which is not the nbd "
                                            "device of {}: deactivate the volumes on it, and "
                                            "activate them",
                                            path, share->server, image.location)});
  }
}

// Tables that differ in more than their origin are no half state of ours: a person has to look.
void compare_tables(const FsckState& state, const VolumeRecord& volume, const DmTarget& live,
                    Problems& problems) {
  const DmInfo* const pool = info_named(state, volume.pool);
  const DmInfo* const origin =
      volume.image.empty() ? nullptr : info_named(state, origin_name(volume.image));
  const std::string pool_number = pool == nullptr ? "" : pool->number();
  const bool has_origin = origin != nullptr;
  const DmTarget wanted =
      thin_target(volume, pool_number, has_origin ? origin->number() : std::string());
  const bool lacks_origin = !volume.image.empty() && !has_origin;
  if (live == wanted && !lacks_origin) return;

  const DmTarget bare = thin_target(volume, pool_number, "");
  const bool is_ours = live.type == bare.type && live.start == bare.start &&
                       live.sectors == bare.sectors &&
                       (live.params == bare.params || live.params.starts_with(bare.params + " "));
  const std::string path = dm_path(volume.name);
  if (!is_ours) {
    problems.push_back({.what = "volume-table",
                        .text = fmt::format("{}: its table is '{}', and the registry asks for "
                                            "'{}': deactivate it, and activate it",
                                            path, table_text({live}), table_text({wanted}))});
    return;
  }
  const std::string has =
      live.params == bare.params ? "none" : live.params.substr(bare.params.size() + 1);
  const std::string needs = volume.image.empty() ? "none" : dm_path(origin_name(volume.image));
  problems.push_back(
      {.what = "volume-origin",
       .text = fmt::format("{}: its origin is {}, and has to be {}", path, has, needs),
       .repair = FsckRepair::kReloadVolume,
       .subject = volume.name});
}

}  // namespace

void check_pool(const FsckState& state, const FsckPool& seen, Problems& problems) {
  const PoolRecord& pool = *state.registry.pool(seen.name);
  if (!seen.status) {
    if (pool.pending) {
      problems.push_back({.what = "pending",
                          .text = fmt::format("pool {}: a change of volume {} was interrupted; it "
                                              "is settled when the pool is activated",
                                              pool.name, pool.pending->volume),
                          .repair = FsckRepair::kRecover,
                          .subject = pool.name});
    }
    return;
  }
  if (seen.status->mode != "rw" || seen.status->needs_check) {
    problems.push_back(
        {.what = "pool-state",
         .text = fmt::format("pool {}: mode {}{}: 'underlay-thin pool status {}' says more",
                             pool.name, seen.status->mode,
                             seen.status->needs_check ? ", needs check" : "", pool.name)});
  }
  if (seen.status->mode == "fail") return;
  check_transaction(pool, *seen.status, problems);
  if (seen.thin_ids && !pool.pending) check_thin_ids(state, pool, *seen.thin_ids, problems);
}

void check_volume(const FsckState& state, const VolumeRecord& volume, Problems& problems) {
  for (const FsckDevice& device : state.devices) {
    if (device.info.name != volume.name || device.info.uuid != volume.uuid) continue;
    if (!device.table.empty()) compare_tables(state, volume, device.table.front(), problems);
  }
  // Once for all volumes on an image.
  const auto first =
      std::find_if(state.registry.volumes.begin(), state.registry.volumes.end(),
                   [&](const VolumeRecord& one) { return one.image == volume.image; });
  if (volume.image.empty() || first->name != volume.name) return;
  check_origin_table(state, *state.registry.image(volume.image), problems);
}

}  // namespace underlay::thin
