#include "formats/block_cache.h"

#include <algorithm>

namespace underlay {
namespace {

// A shard must hold several of the largest blocks (2 MiB clusters).
constexpr uint64_t kMinShardBudget = 8ull << 20;
constexpr uint64_t kMaxShards = 16;

}  // namespace

size_t BlockCache::KeyHash::operator()(const Key& key) const {
  // Offsets are multiples of powers of two: mix all bits into the low ones (splitmix64's finish).
  uint64_t h = key.offset + key.owner * 0x9e3779b97f4a7c15ull;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return static_cast<size_t>(h ^ (h >> 31));
}

BlockCache::BlockCache(uint64_t budget) {
  const uint64_t count = std::clamp<uint64_t>(budget / kMinShardBudget, 1, kMaxShards);
  shard_budget_ = budget / count;
  for (uint64_t i = 0; i < count; ++i) shards_.push_back(std::make_unique<Shard>());
}

BlockCache::Shard& BlockCache::shard_of(Key key) {
  // The map inside uses the low bits: take high ones.
  return *shards_[(KeyHash{}(key) >> 32) % shards_.size()];
}

BlockCache::Handle BlockCache::find_locked(Shard& shard, Key key) {
  const auto found = shard.blocks.find(key);
  if (found == shard.blocks.end()) return nullptr;
  shard.recent.splice(shard.recent.begin(), shard.recent, found->second);
  return found->second->block;
}

BlockCache::Handle BlockCache::find(Key key) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.mutex);
  return find_locked(shard, key);
}

Result<BlockCache::Handle> BlockCache::load_once(Key key, size_t size, const Loader& load) {
  Shard& shard = shard_of(key);
  auto bytes = std::make_shared<Bytes>(size);
  std::unique_lock lock(shard.mutex);
  for (;;) {
    if (Handle block = find_locked(shard, key)) return block;
    if (!shard.loading.contains(key)) break;
    // When that load fails, or its block is too large to be kept, this thread loads for itself.
    shard.loaded.wait(lock);
  }
  shard.loading.insert(key);
  lock.unlock();
  const auto loading_is_over = [&] {
    lock.lock();
    shard.loading.erase(key);
    shard.loaded.notify_all();
  };
  Result<void> result;
  try {
    result = load(MutableByteSpan(*bytes));
  } catch (...) {  // no memory: those who wait must not wait for ever
    loading_is_over();
    throw;
  }
  loading_is_over();
  if (!result) return Failure(std::move(result).error());
  insert_locked(shard, key, bytes);
  return Handle(std::move(bytes));
}

void BlockCache::insert_locked(Shard& shard, Key key, Handle block) {
  const uint64_t size = block->size();
  if (size > shard_budget_) return;
  while (shard.used + size > shard_budget_) {
    shard.used -= shard.recent.back().block->size();
    shard.blocks.erase(shard.recent.back().key);
    shard.recent.pop_back();
  }
  shard.recent.push_front(Entry{.key = key, .block = std::move(block)});
  shard.blocks.emplace(key, shard.recent.begin());
  shard.used += size;
}

uint64_t BlockCache::used() const {
  uint64_t sum = 0;
  for (const auto& shard : shards_) {
    const std::lock_guard lock(shard->mutex);
    sum += shard->used;
  }
  return sum;
}

}  // namespace underlay
