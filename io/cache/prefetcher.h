// Fetches images before anybody asks for them, no faster than is allowed, until they are local: all
// of them, or what was read of them first when they were served last.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "io/cache/boot_record.h"
#include "io/cache/cached_source.h"

namespace underlay {

enum class PrefetchWhat : uint8_t { kNothing, kBoot, kAll };

// Thread-safe.
class Prefetcher {
 public:
  struct Config {
    PrefetchWhat what = PrefetchWhat::kNothing;
    uint64_t rate = 32ull << 20;  // bytes a second, of all images together
  };
  // `cache` outlives it.
  Prefetcher(const Config& config, DiskCache& cache) : config_(config), cache_(cache) {}
  // Waits for the requests that are under way; keeps the records that are not over.
  ~Prefetcher();

  // What a source is to note its reads in; null when nobody wants to know.
  std::shared_ptr<BootRecord> new_record() const;
  // Takes its turn once the threads run. `record`: of new_record().
  void add(const std::shared_ptr<const CachedSource>& source, std::shared_ptr<BootRecord> record);

  // Starts the threads, if there is something to do. REQUIRES: not called before.
  void start();

  // Requests under way: servers are far, and one after the other would mostly wait.
  static constexpr size_t kParallel = 8;

 private:
  using Clock = std::chrono::steady_clock;
  struct Work {
    std::weak_ptr<const CachedSource> source;
    std::vector<BlockRun> runs;  // that are still to be fetched
  };
  struct Recording {
    CacheObject object;
    std::shared_ptr<BootRecord> record;
  };
  // What one request brings.
  struct Piece {
    std::weak_ptr<const CachedSource> source;
    BlockRun run;
  };
  void keep_records();
  void fetch_all();
  bool has_turn(std::unique_lock<std::mutex>& lock);
  Piece take_piece();
  static Result<uint64_t> fetch(const Piece& piece);
  Clock::duration time_for(uint64_t bytes) const;
  void save_records(std::unique_lock<std::mutex>& lock, bool all);
  std::vector<BlockRun> load(const CacheObject& object) const;

  const Config config_;
  DiskCache& cache_;
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<Work> queue_;
  std::vector<Recording> recordings_;
  Clock::time_point due_;  // of the next request
  bool ending_ = false;
  std::vector<std::thread> threads_;  // not under the mutex
};

}  // namespace underlay
