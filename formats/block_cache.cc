#include "formats/block_cache.h"

#include <algorithm>
#include <cassert>

namespace underlay {
namespace {

constexpr uint64_t kMaxShards = 16;
constexpr uint64_t kLargestBlocksInShard = 4;

// Shares of the budget.
constexpr uint64_t kMemoryShare = 32;  // one in so many bytes waits for the next block
constexpr uint64_t kFirstShare = 5;    // the first queue, when the cache is full
constexpr uint64_t kGoneShare = 16;    // what is remembered of blocks that are gone

// Uses of one block while others of its shard are used less often than this count once: a client
// that reads a cluster piece by piece uses it once.
constexpr uint32_t kOneUse = 16;
constexpr uint8_t kUsesForMain = 2;  // while it was in the first queue
constexpr uint8_t kMaxUses = 3;

}  // namespace

BlockCache::BlockCache(uint64_t budget, uint64_t largest) : memory_(budget / kMemoryShare) {
  const uint64_t rest = budget - budget / kMemoryShare;
  const uint64_t count =
      std::clamp<uint64_t>(rest / (kLargestBlocksInShard * largest), 1, kMaxShards);
  shard_budget_ = rest / count;
  for (uint64_t i = 0; i < count; ++i) shards_.push_back(std::make_unique<Shard>());
}

BlockCache::HashedKey BlockCache::hashed(Key key) {
  // Offsets are multiples of powers of two: mix all bits into the low ones (splitmix64's finish).
  uint64_t h = key.offset + key.owner * 0x9e3779b97f4a7c15ull;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return {.key = key, .hash = static_cast<size_t>(h ^ (h >> 31))};
}

BlockCache::Shard& BlockCache::shard_of(const HashedKey& key) {
  // The index inside uses the low bits: take high ones.
  return *shards_[((uint64_t{key.hash} >> 32) * shards_.size()) >> 32];
}

uint64_t BlockCache::taken(const Shard& shard) {
  return shard.first_cost + shard.main_cost + shard.gone.size() * kEntryBytes;
}

BlockCache::Handle BlockCache::find_locked(Shard& shard, const HashedKey& key) {
  const auto found = shard.index.find(key);
  if (found == shard.index.end() || found->second->queue == Queue::kGone) return nullptr;
  Entry& entry = *found->second;
  ++shard.hits;
  if (shard.last_used != &entry) ++shard.time;
  shard.last_used = &entry;
  if (shard.time - entry.counted >= kOneUse) {
    entry.counted = shard.time;
    entry.uses = std::min<uint8_t>(static_cast<uint8_t>(entry.uses + 1), kMaxUses);
  }
  return entry.block;
}

BlockCache::Handle BlockCache::find(Key key) {
  const HashedKey wanted = hashed(key);
  Shard& shard = shard_of(wanted);
  const std::lock_guard lock(shard.mutex);
  return find_locked(shard, wanted);
}

std::shared_ptr<BlockCache::Load> BlockCache::load_of(const Shard& shard, const HashedKey& key) {
  const auto found = std::find_if(shard.loads.begin(), shard.loads.end(),
                                  [&](const auto& load) { return load->key == key; });
  return found == shard.loads.end() ? nullptr : *found;
}

Result<BlockCache::Handle> BlockCache::load_once(Key key, size_t size, const Loader& load) {
  const HashedKey wanted = hashed(key);
  Shard& shard = shard_of(wanted);
  const auto mine = std::make_shared<Load>();
  mine->key = wanted;
  {
    std::unique_lock lock(shard.mutex);
    for (;;) {
      if (Handle block = find_locked(shard, wanted)) return block;
      const std::shared_ptr<Load> other = load_of(shard, wanted);
      if (!other) break;
      other->ended.wait(lock, [&] { return other->is_over; });
      if (other->block) return other->block;
      // A failure is told to the one who loaded: who waited tries for himself.
    }
    ++shard.loads_begun;
    shard.loads.push_back(mine);
  }
  std::shared_ptr<Block> block;
  Result<void> result;
  try {
    block = memory_.allocate(size);
    result = load(block->writable());
  } catch (...) {  // no memory: those who wait must not wait for ever
    end_load(shard, mine, nullptr);
    throw;
  }
  end_load(shard, mine, result ? block : nullptr);
  if (!result) return Failure(std::move(result).error());
  return Handle(std::move(block));
}

void BlockCache::end_load(Shard& shard, const std::shared_ptr<Load>& load, Handle block) {
  const std::lock_guard lock(shard.mutex);
  std::erase(shard.loads, load);
  load->is_over = true;
  load->block = block;
  load->ended.notify_all();
  if (block) insert_locked(shard, load->key, std::move(block));
}

void BlockCache::insert_locked(Shard& shard, const HashedKey& key, Handle block) {
  const uint64_t cost = block->size() + kEntryBytes;
  if (cost > shard_budget_) return;
  const auto known = shard.index.find(key);
  const bool was_here = known != shard.index.end();
  Entries entry;
  if (was_here) {
    assert(known->second->queue == Queue::kGone);
    shard.gone_cost -= known->second->cost;
    entry.splice(entry.end(), shard.gone, known->second);
  } else {
    entry.emplace_back();
    shard.index.emplace(key, entry.begin());
  }
  make_room(shard, cost);
  entry.front() = Entry{.key = key,
                        .block = std::move(block),
                        .cost = cost,
                        .counted = shard.time,
                        .uses = 0,
                        .queue = was_here ? Queue::kMain : Queue::kFirst};
  (was_here ? shard.main_cost : shard.first_cost) += cost;
  Entries& queue = was_here ? shard.main : shard.first;
  queue.splice(queue.end(), entry);
}

void BlockCache::make_room(Shard& shard, uint64_t cost) {
  const uint64_t first_share = shard_budget_ / kFirstShare;
  while (taken(shard) + cost > shard_budget_) {
    const bool first_is_long =
        !shard.first.empty() && shard.first_cost - shard.first.front().cost >= first_share;
    if (first_is_long || (shard.main.empty() && !shard.first.empty())) {
      evict_from_first(shard);
    } else if (!shard.main.empty()) {
      evict_from_main(shard);
    } else {
      forget_oldest(shard);
    }
  }
}

void BlockCache::evict_from_first(Shard& shard) {
  const auto oldest = shard.first.begin();
  shard.first_cost -= oldest->cost;
  if (oldest->uses >= kUsesForMain) {
    oldest->uses = 0;
    oldest->queue = Queue::kMain;
    shard.main_cost += oldest->cost;
    shard.main.splice(shard.main.end(), shard.first, oldest);
    return;
  }
  oldest->block = nullptr;
  oldest->queue = Queue::kGone;
  shard.gone_cost += oldest->cost;
  shard.gone.splice(shard.gone.end(), shard.first, oldest);
  while (shard.gone_cost > shard_budget_ ||
         shard.gone.size() * kEntryBytes > shard_budget_ / kGoneShare) {
    forget_oldest(shard);
  }
}

// Those that were used since they were last looked at go round once more.
void BlockCache::evict_from_main(Shard& shard) {
  const auto oldest = shard.main.begin();
  if (oldest->uses > 0) {
    --oldest->uses;
    shard.main.splice(shard.main.end(), shard.main, oldest);
    return;
  }
  shard.main_cost -= oldest->cost;
  shard.index.erase(oldest->key);
  shard.main.erase(oldest);
}

void BlockCache::forget_oldest(Shard& shard) {
  const auto oldest = shard.gone.begin();
  shard.gone_cost -= oldest->cost;
  shard.index.erase(oldest->key);
  shard.gone.erase(oldest);
}

BlockCache::Counts BlockCache::counts() const {
  Counts counts{.used = memory_.kept()};
  for (const auto& shard : shards_) {
    const std::lock_guard lock(shard->mutex);
    counts.hits += shard->hits;
    counts.loads += shard->loads_begun;
    counts.used += taken(*shard);
  }
  return counts;
}

}  // namespace underlay
