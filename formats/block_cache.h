// A cache of immutable blocks (metadata slices, unpacked clusters) under a byte budget, shared by
// all images and connections. Images do not change, so nothing is ever invalidated.
//
// A scan, which needs each block once, must not evict what is needed again and again. So new blocks
// pass a first queue, a small part of the cache when it is full:
//
//   load --> first queue --(used again and again)--> main queue --(not used lately)--> gone
//                  \______(else)______> gone, but remembered for a while:
//                                       when it is loaded again, it goes to the main queue
//
// Using a block only counts it; queues move when something is evicted.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "formats/block_memory.h"
#include "formats/extent_cache.h"
#include "io/buffer_pool.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

class RemoteCache;

// Thread-safe.
class BlockCache {
 public:
  struct Key {
    uint64_t owner = 0;   // of Caches::new_owner(): one for each open file, layer or disk
    uint64_t offset = 0;  // what it means is the owner's business
    bool operator==(const Key&) const = default;
  };
  using Bytes = Block;
  using Handle = std::shared_ptr<const Bytes>;  // keeps the block alive, cached or not

  // Memory beyond its bytes that a block costs at most: its places in the index and the queues.
  static constexpr uint64_t kEntryBytes = 256;
  static constexpr uint64_t kLargestBlock = 2ull << 20;  // what formats allow a cluster to have

  // Keeps at most `budget` bytes, kEntryBytes for each block among them (loads that are going on
  // and handles that are out come on top). `largest` is the size of the largest block that is
  // expected: several of them fit side by side, whatever their keys. Outlives the handles.
  explicit BlockCache(uint64_t budget, uint64_t largest = kLargestBlock);

  // The block, or null when it is not in memory. Never blocks on a load. Does not allocate.
  Handle find(Key key);

  // The block, loaded by `load(MutableByteSpan) -> Result<void>`, which fills `size` bytes, when it
  // is not in memory: once, however many threads ask at the same time. May block. Fails as `load`
  // failed; a failure is not kept. REQUIRES: `size` was checked against a limit.
  template <class Load>
  Result<Handle> get(Key key, size_t size, Load&& load) {
    if (Handle block = find(key)) return block;
    return load_once(key, size, std::ref(load));
  }

  struct Counts {
    uint64_t hits = 0;   // blocks that were there when they were asked for
    uint64_t loads = 0;  // those that had to be loaded
    uint64_t used = 0;   // bytes of the budget that are taken now
  };
  Counts counts() const;
  uint64_t used() const { return counts().used; }

 private:
  // With its hash, which chooses the shard too.
  struct HashedKey {
    Key key;
    size_t hash = 0;
    bool operator==(const HashedKey& other) const { return key == other.key; }
  };
  struct KeyHash {
    size_t operator()(const HashedKey& key) const { return key.hash; }
  };
  enum class Queue : uint8_t { kFirst, kMain, kGone };
  struct Entry {
    HashedKey key;
    Handle block;          // null in kGone
    uint64_t cost = 0;     // of the block, also when it is gone
    uint32_t counted = 0;  // Shard::time of the last use that counted
    uint8_t uses = 0;
    Queue queue = Queue::kFirst;
  };
  using Entries = std::list<Entry>;  // the oldest first
  // A load that is going on. All but the key: under the shard's mutex.
  struct Load {
    HashedKey key;
    std::condition_variable ended;
    bool is_over = false;
    Handle block;  // null when it has failed
  };
  struct Shard {
    mutable std::mutex mutex;
    std::unordered_map<HashedKey, Entries::iterator, KeyHash> index;
    Entries first, main, gone;
    uint64_t first_cost = 0, main_cost = 0, gone_cost = 0;
    uint64_t hits = 0, loads_begun = 0;
    uint32_t time = 0;  // ticks when another block is used than the one before
    const Entry* last_used = nullptr;
    std::vector<std::shared_ptr<Load>> loads;
  };
  using Loader = std::function<Result<void>(MutableByteSpan)>;

  static HashedKey hashed(Key key);
  Shard& shard_of(const HashedKey& key);
  static Handle find_locked(Shard& shard, const HashedKey& key);
  static std::shared_ptr<Load> load_of(const Shard& shard, const HashedKey& key);
  Result<Handle> load_once(Key key, size_t size, const Loader& load);
  void end_load(Shard& shard, const std::shared_ptr<Load>& load, Handle block);
  void insert_locked(Shard& shard, const HashedKey& key, Handle block);
  void make_room(Shard& shard, uint64_t cost);
  void evict_from_first(Shard& shard);
  void evict_from_main(Shard& shard);
  void forget_oldest(Shard& shard);
  static uint64_t taken(const Shard& shard);

  uint64_t shard_budget_;
  BlockMemory memory_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

// What unpacking clusters has cost. Thread-safe.
struct UnpackCounts {
  std::atomic<uint64_t> clusters = 0;
  std::atomic<uint64_t> bytes = 0;  // once unpacked
  std::atomic<uint64_t> nanoseconds = 0;
};

// The caches that all images of a program share.
struct Caches {
  struct Budget {
    uint64_t tables = 32ull << 20;    // metadata slices, and an eighth of it for extents
    uint64_t clusters = 64ull << 20;  // unpacked clusters
  };
  Caches() : Caches(Budget{}) {}
  explicit Caches(Budget budget)
      : extents(budget.tables / 8),
        tables(budget.tables - budget.tables / 8, kLargestTable),
        clusters(budget.clusters),
        read_ahead(budget.clusters / 8, 0) {}

  // A number that no other file, layer or disk has for the life of the program.
  uint64_t new_owner() { return next_owner_.fetch_add(1, std::memory_order_relaxed); }

  ExtentCache extents;
  BlockCache tables;
  BlockCache clusters;
  UnpackCounts unpacking;
  std::shared_ptr<RemoteCache> remote;  // of images on servers, on disk; null: none is kept
  ByteBudget read_ahead;  // of the bytes in `clusters`: what may be unpacked before it is asked for

 private:
  static constexpr uint64_t kLargestTable = 64 << 10;  // slices of tables are smaller

  std::atomic<uint64_t> next_owner_ = 1;
};

}  // namespace underlay
