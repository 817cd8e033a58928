// A cache of remote images in a local folder, which any number of processes share. Blocks are kept
// by what they are (Source::content_id()), so they survive restarts, crashes and other addresses.
//
// Nothing here fails a read: what cannot be read from the folder is read from the remote source,
// what cannot be stored is not, and the log has one line about it now and then.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/cache/cache_directory.h"
#include "io/cache/cache_group.h"
#include "io/log.h"

namespace underlay {

// One remote image in the cache, as DiskCache::object() makes it.
class CacheObject {
 public:
  CacheObject(ObjectFacts facts, std::string name, uint64_t number)
      : facts_(std::move(facts)), name_(std::move(name)), number_(number) {}

  const ObjectFacts& facts() const { return facts_; }
  const std::string& name() const { return name_; }
  uint64_t number() const { return number_; }  // of this process; the same for the same facts
  uint64_t blocks() const { return div_round_up(facts_.size, kCacheBlock); }
  // The last one may be shorter.
  size_t block_length(uint64_t block) const {
    return static_cast<size_t>(std::min(kCacheBlock, facts_.size - block * kCacheBlock));
  }

 private:
  ObjectFacts facts_;
  std::string name_;
  uint64_t number_;
};

// Of this process since its start.
struct DiskCacheCounts {
  uint64_t hits = 0;  // reads of a block, or of a part of one, that the cache answered
  uint64_t hit_bytes = 0;
  uint64_t fetches = 0;  // requests to remote sources
  uint64_t fetched_bytes = 0;
  uint64_t stored_bytes = 0;
  uint64_t damaged_blocks = 0;  // found by their digests, and fetched again
  uint64_t failures = 0;        // of the folder: I/O errors, a full disk
};

// Thread-safe.
class DiskCache {
 public:
  struct Config {
    std::string path;    // the folder
    uint64_t limit = 0;  // bytes, of all processes that use the folder; see kReserve
    // How exactly is known what was used when.
    std::chrono::seconds touch_interval{30};
    std::optional<CacheOwner> owner{};  // of a folder that is made
  };
  // `log` outlives it. Fails when there is no such folder and none can be made; one that cannot be
  // written to serves what it has.
  static Result<std::unique_ptr<DiskCache>> open(const Config& config, Log& log);

  CacheObject object(ObjectFacts facts);

  // Copies bytes of a block, from `skip` on. False: it must be fetched. May block.
  // REQUIRES: skip + out.size() <= object.block_length(block).
  bool read(const CacheObject& object, uint64_t block, size_t skip, MutableByteSpan out);
  // What of it is in memory; never blocks. The number of bytes, from the front.
  size_t read_now(const CacheObject& object, uint64_t block, size_t skip, MutableByteSpan out);
  // Is it probably there? May block.
  bool has(const CacheObject& object, uint64_t block);
  // May anything be kept now? Not in a folder that cannot be written to, and not for a while after
  // a failure.
  bool may_store() const;
  // Keeps a block if there is room. May block. REQUIRES: the bytes are all of the block.
  void store(const CacheObject& object, uint64_t block, ByteSpan bytes);

  // Who fetches these blocks, of all processes: whoever holds it looks again whether they are here
  // now, and stores them before it is released. Holds nothing when another process takes longer
  // than `limit`, or when nothing can be stored. May block. REQUIRES: the blocks are of one group.
  class FetchLock {
   public:
    FetchLock() = default;
    FetchLock(std::shared_ptr<CacheGroup> group, FileLock lock)
        : group_(std::move(group)), lock_(std::move(lock)) {}
    bool is_held() const { return lock_.held(); }

   private:
    std::shared_ptr<CacheGroup> group_;  // outlives the lock
    FileLock lock_;
  };
  FetchLock lock(const CacheObject& object, uint64_t first, unsigned count,
                 std::chrono::milliseconds limit);

  // Of requests to the remote source, for counts().
  void count_fetch(uint64_t bytes);
  DiskCacheCounts counts() const;

  CacheDirectory& directory() { return *directory_; }
  Log& log() { return log_; }
  // Evicts until at most `bytes` are left; the bytes that are. May block.
  Result<uint64_t> trim(uint64_t bytes);

  // Closes files that another process has evicted, whose space is taken until then. May block.
  void close_evicted();
  // That, and CacheGroup::keep() of all that are open. To be called every second or so. May block.
  void keep();

  // What one process sets aside of the limit at once: when the files are counted again, so much for
  // each process may come on top of it.
  static constexpr uint64_t kReserve = 1 << 20;
  static constexpr size_t kOpenGroups = 256;

 private:
  struct Key {
    uint64_t object = 0;
    uint64_t group = 0;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return static_cast<size_t>((key.object * 0x9e3779b97f4a7c15ull + key.group) *
                                 0xbf58476d1ce4e5b9ull);
    }
  };
  struct Entry {
    std::shared_ptr<CacheGroup> group;
    uint64_t used = 0;  // uses_ at its last use
  };

  DiskCache(const Config& config, std::unique_ptr<CacheDirectory> directory, Log& log);
  std::shared_ptr<CacheGroup> find_open(Key key);
  std::shared_ptr<CacheGroup> group_of(const CacheObject& object, uint64_t block,
                                       CacheGroup::Make make);
  std::shared_ptr<CacheGroup> keep_open(Key key, std::shared_ptr<CacheGroup> group);
  std::vector<std::pair<Key, std::shared_ptr<CacheGroup>>> open_groups();
  void retire(std::unordered_map<Key, Entry, KeyHash>::iterator entry);
  void close_retired();
  bool take_room(uint64_t bytes);
  void fail_softly(const Error& error, bool of_storing);

  const std::chrono::seconds touch_interval_;
  const std::unique_ptr<CacheDirectory> directory_;
  Log& log_;

  std::mutex groups_mutex_;  // of what follows
  std::map<std::pair<std::string, uint64_t>, uint64_t> numbers_;  // by the facts
  std::unordered_map<Key, Entry, KeyHash> groups_;
  // To be closed once nobody uses them: closing may block, and must not on a ring's thread.
  std::vector<std::shared_ptr<CacheGroup>> retired_;
  uint64_t uses_ = 0;

  std::mutex room_mutex_;
  uint64_t room_ = 0;  // bytes set aside and not yet written

  std::atomic<int64_t> stores_again_ = 0;  // when, after a failure; ticks of the steady clock
  std::atomic<int64_t> speaks_again_ = 0;

  struct Counters {
    std::atomic<uint64_t> hits = 0, hit_bytes = 0, fetches = 0, fetched_bytes = 0, stored_bytes = 0,
                          damaged_blocks = 0, failures = 0;
  } counters_;
};

}  // namespace underlay
