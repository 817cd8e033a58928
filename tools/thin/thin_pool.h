// A thin pool in the kernel: its table, its messages, its status (kernel documentation,
// admin-guide/device-mapper/thin-provisioning).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/error.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

inline constexpr uint64_t kMetadataBlock = 4096;  // bytes; the first is the superblock

struct PoolStatus {
  uint64_t transaction_id = 0;
  uint64_t used_metadata = 0;  // blocks of kMetadataBlock
  uint64_t total_metadata = 0;
  uint64_t used_data = 0;  // pool blocks
  uint64_t total_data = 0;
  bool has_metadata_snapshot = false;
  std::string mode;  // "rw", "ro", "out_of_data_space", "fail"
  bool needs_check = false;
  uint64_t low_water_blocks = 0;

  bool below_low_water() const { return total_data - used_data < low_water_blocks; }
};

// The status line of a thin-pool target.
Result<PoolStatus> parse_pool_status(const std::string& params);
// Of an active pool. kNotFound when it is not active.
Result<PoolStatus> pool_status(const std::string& pool);

struct ThinStatus {
  uint64_t mapped_sectors = 0;
  std::optional<uint64_t> highest_sector;
  bool failed = false;
};
Result<ThinStatus> parse_thin_status(const std::string& params);
Result<ThinStatus> thin_status(const std::string& volume);

// The target that makes a pool of two devices ("MAJOR:MINOR").
DmTarget pool_target(const PoolRecord& pool, const std::string& metadata_number,
                     const std::string& data_number, uint64_t data_sectors);
// The target of a volume. `origin`: "MAJOR:MINOR" or "".
DmTarget thin_target(const VolumeRecord& volume, const std::string& pool_number,
                     const std::string& origin);

// Messages. Each is committed to the pool's metadata when it returns.
Result<void> pool_create_thin(const std::string& pool, uint32_t thin_id);
// REQUIRES: the source is suspended, or not active.
Result<void> pool_create_snapshot(const std::string& pool, uint32_t thin_id, uint32_t source);
// kNotFound when the pool has no such thin id.
Result<void> pool_delete(const std::string& pool, uint32_t thin_id);
Result<void> pool_set_transaction(const std::string& pool, uint64_t from, uint64_t to);

// The same messages in words.
std::string message_words(const std::string& pool, const std::string& message);

// A run of pool blocks that a thin id has mapped.
struct MappedRun {
  uint64_t first_block = 0;
  uint64_t blocks = 0;
};
// All that `thin_id` has mapped at this moment, ascending and merged: takes a metadata snapshot,
// reads it with thin_dump, releases it. `metadata`: the path of the pool's metadata device.
Result<std::vector<MappedRun>> pool_mapped_runs(const std::string& pool,
                                                const std::string& metadata, uint32_t thin_id);
// What of `thin_id` is not the same block of the pool as in `since`, the same way (thin_delta).
Result<std::vector<MappedRun>> pool_changed_runs(const std::string& pool,
                                                 const std::string& metadata, uint32_t since,
                                                 uint32_t thin_id);
// The thin ids that the pool has, the same way.
Result<std::vector<uint32_t>> pool_thin_ids(const std::string& pool, const std::string& metadata);

}  // namespace underlay::thin
