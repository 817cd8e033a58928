// What a hydration copies, and in which portions. Pure: block numbers in, block numbers out.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/image_plan.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {

// Blocks of a volume, each as large as the pool's. Ascending, no two runs touch.
using BlockRuns = std::vector<MappedRun>;

uint64_t block_count(const BlockRuns& runs);
// Runs in any order, which may overlap, as BlockRuns.
BlockRuns normalized(std::vector<MappedRun> runs);
// Those of `blocks` that are not in `others`.
BlockRuns without(const BlockRuns& blocks, const BlockRuns& others);
// Takes the first `count` blocks off `left`.
BlockRuns take_front(BlockRuns& left, uint64_t count);

// The blocks of a volume in which an image has data, be it one sector.
// REQUIRES: block_sectors > 0.
BlockRuns blocks_with_data(const std::vector<AllocatedRun>& data, uint64_t block_sectors,
                           uint64_t volume_sectors);

// Fails, saying how to go on, unless `blocks` more fit into the pool above its low-water mark and
// its metadata has room to spare.
Result<void> check_room(const PoolStatus& pool, uint64_t blocks, const std::string& name,
                        uint64_t block_bytes);

// How many blocks to copy at once: as many as keep the guest's pause short.
class BatchPace {
 public:
  // `rate`: bytes a second; a batch is no more than what it allows in a quarter of a second.
  // REQUIRES: block_bytes > 0.
  BatchPace(uint64_t block_bytes, std::optional<uint64_t> rate);

  uint64_t blocks() const { return blocks_; }
  // The guest waited for `pause` while `copied` blocks were copied.
  void paused(uint64_t copied, std::chrono::microseconds pause);

  static constexpr std::chrono::milliseconds kAim{25};  // half of what is promised
  static constexpr uint64_t kFirstBytes = 1 << 20;
  static constexpr uint64_t kMaxBytes = 16 << 20;  // stays in memory meanwhile

 private:
  uint64_t most_;
  uint64_t blocks_;
};

}  // namespace underlay::thin
