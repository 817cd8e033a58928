// Fetches images before anybody asks for them, slowly, until they are local: all of them, or what
// was read of them first when they were served last.
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
  // Waits for a request that is under way; keeps the records that are not over.
  ~Prefetcher();

  // What a source is to note its reads in; null when nobody wants to know.
  std::shared_ptr<BootRecord> new_record() const;
  // Takes its turn once the thread runs. `record`: of new_record().
  void add(const std::shared_ptr<const CachedSource>& source, std::shared_ptr<BootRecord> record);

  // Starts the thread, if there is something to do. REQUIRES: not called before.
  void start();

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
  void run();
  void fetch_next(std::unique_lock<std::mutex>& lock);
  void pause(std::unique_lock<std::mutex>& lock, Clock::duration time);
  void save_records(std::unique_lock<std::mutex>& lock, bool all);
  std::vector<BlockRun> load(const CacheObject& object) const;

  const Config config_;
  DiskCache& cache_;
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<Work> queue_;
  std::vector<Recording> recordings_;
  bool ending_ = false;
  std::thread thread_;  // not under the mutex
};

}  // namespace underlay
