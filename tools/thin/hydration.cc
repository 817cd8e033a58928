#include "tools/thin/hydration.h"

#include <algorithm>

namespace underlay::thin {
namespace {

// The kernel makes a pool read-only that runs out of metadata: keep this share of it free.
constexpr uint64_t kFreeMetadataShare = 16;

void append(BlockRuns& runs, uint64_t first, uint64_t end) {
  if (first >= end) return;
  if (!runs.empty() && runs.back().first_block + runs.back().blocks >= first) {
    MappedRun& last = runs.back();
    last.blocks = std::max(last.first_block + last.blocks, end) - last.first_block;
  } else {
    runs.push_back({.first_block = first, .blocks = end - first});
  }
}

uint64_t end_of(const MappedRun& run) { return run.first_block + run.blocks; }

}  // namespace

uint64_t block_count(const BlockRuns& runs) {
  uint64_t count = 0;
  for (const MappedRun& run : runs) count += run.blocks;
  return count;
}

BlockRuns normalized(std::vector<MappedRun> runs) {
  std::sort(runs.begin(), runs.end(),
            [](const MappedRun& a, const MappedRun& b) { return a.first_block < b.first_block; });
  BlockRuns merged;
  for (const MappedRun& run : runs) append(merged, run.first_block, end_of(run));
  return merged;
}

BlockRuns without(const BlockRuns& blocks, const BlockRuns& others) {
  BlockRuns left;
  auto other = others.begin();
  for (const MappedRun& run : blocks) {
    uint64_t at = run.first_block;
    while (other != others.end() && end_of(*other) <= at) ++other;
    for (auto next = other; next != others.end() && next->first_block < end_of(run); ++next) {
      append(left, at, next->first_block);
      at = std::max(at, end_of(*next));
    }
    append(left, at, end_of(run));
  }
  return left;
}

BlockRuns take_front(BlockRuns& left, uint64_t count) {
  BlockRuns taken;
  auto run = left.begin();
  for (; run != left.end() && count >= run->blocks; ++run) {
    taken.push_back(*run);
    count -= run->blocks;
  }
  if (run != left.end() && count > 0) {
    taken.push_back({.first_block = run->first_block, .blocks = count});
    run->first_block += count;
    run->blocks -= count;
  }
  left.erase(left.begin(), run);
  return taken;
}

BlockRuns blocks_with_data(const std::vector<AllocatedRun>& data, uint64_t block_sectors,
                           uint64_t volume_sectors) {
  BlockRuns blocks;
  for (const AllocatedRun& run : data) {
    if (run.start >= volume_sectors) break;
    const uint64_t last = run.start + std::min(run.sectors, volume_sectors - run.start) - 1;
    append(blocks, run.start / block_sectors, last / block_sectors + 1);
  }
  return blocks;
}

Result<void> check_room(const PoolStatus& pool, uint64_t blocks, const std::string& name,
                        uint64_t block_bytes) {
  if (pool.mode != "rw" || pool.needs_check) {
    return fail(ErrorKind::kUsage,
                "pool {} takes no writes (mode {}{}): 'underlay-thin pool status {}' says more",
                name, pool.mode, pool.needs_check ? ", needs check" : "", name);
  }
  const uint64_t free_metadata = pool.total_metadata - pool.used_metadata;
  if (free_metadata < pool.total_metadata / kFreeMetadataShare) {
    return fail(ErrorKind::kLimit, "the metadata of pool {} is nearly full ({} of {} blocks used)",
                name, pool.used_metadata, pool.total_metadata);
  }
  const uint64_t free = pool.total_data - pool.used_data;
  const uint64_t usable = free > pool.low_water_blocks ? free - pool.low_water_blocks : 0;
  if (blocks <= usable) return {};
  return fail(ErrorKind::kLimit,
              "pool {} has room for {} bytes above its low-water mark, and {} are still to be "
              "copied: make it larger ('underlay-thin pool grow {}'), then run hydrate again",
              name, usable * block_bytes, blocks * block_bytes, name);
}

BatchPace::BatchPace(uint64_t block_bytes, std::optional<uint64_t> rate) {
  const uint64_t bytes = std::min(kMaxBytes, rate.value_or(UINT64_MAX) / 4);
  most_ = std::max<uint64_t>(1, bytes / block_bytes);
  blocks_ = std::clamp<uint64_t>(kFirstBytes / block_bytes, 1, most_);
}

void BatchPace::paused(uint64_t copied, std::chrono::microseconds pause) {
  const auto took = std::max<uint64_t>(1, static_cast<uint64_t>(pause.count()));
  const auto aim =
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(kAim).count());
  // Halved at most, doubled at most: one measurement is no law.
  const uint64_t fitting = copied * aim / took;
  blocks_ = std::clamp(fitting, std::max<uint64_t>(1, blocks_ / 2), blocks_ * 2);
  blocks_ = std::min(blocks_, most_);
}

}  // namespace underlay::thin
