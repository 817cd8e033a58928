// A cache of immutable blocks (metadata slices, unpacked clusters) under a byte budget, shared by
// all images and connections. Images do not change, so nothing is ever invalidated.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "formats/extent_cache.h"
#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// Thread-safe.
class BlockCache {
 public:
  struct Key {
    uint64_t owner = 0;   // of Caches::new_owner(): one for each open file, layer or disk
    uint64_t offset = 0;  // what it means is the owner's business
    bool operator==(const Key&) const = default;
  };
  using Bytes = std::vector<std::byte>;
  using Handle = std::shared_ptr<const Bytes>;  // keeps the block alive, cached or not

  // Keeps at most `budget` bytes of blocks (handles that are out may keep more alive).
  explicit BlockCache(uint64_t budget);

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

  // Bytes of blocks held now.
  uint64_t used() const;

 private:
  struct KeyHash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    Key key;
    Handle block;
  };
  struct Shard {
    mutable std::mutex mutex;
    std::condition_variable loaded;
    std::list<Entry> recent;  // most recently used first
    std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> blocks;
    std::unordered_set<Key, KeyHash> loading;  // keys being loaded now
    uint64_t used = 0;
  };
  using Loader = std::function<Result<void>(MutableByteSpan)>;

  Shard& shard_of(Key key);
  static Handle find_locked(Shard& shard, Key key);
  Result<Handle> load_once(Key key, size_t size, const Loader& load);
  void insert_locked(Shard& shard, Key key, Handle block);

  std::vector<std::unique_ptr<Shard>> shards_;
  uint64_t shard_budget_;
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
        tables(budget.tables - budget.tables / 8),
        clusters(budget.clusters) {}

  // A number that no other file, layer or disk has for the life of the program.
  uint64_t new_owner() { return next_owner_.fetch_add(1, std::memory_order_relaxed); }

  ExtentCache extents;
  BlockCache tables;
  BlockCache clusters;

 private:
  std::atomic<uint64_t> next_owner_ = 1;
};

}  // namespace underlay
