// Threads that fetch what nobody waits for yet, and close what was evicted.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>

#include "io/cache/cached_source.h"
#include "io/cache/ending_threads.h"

namespace underlay {

// Thread-safe.
class BackgroundFetches final : public AheadFetcher {
 public:
  // `cache` outlives it.
  explicit BackgroundFetches(DiskCache& cache) : cache_(cache) {}
  // What is queued is dropped; waits for requests that are under way.
  ~BackgroundFetches() override;

  // Starts the threads; until then all hints are dropped. REQUIRES: not called before.
  void start();

  // Begins no more requests. False when the threads have not ended at `until`: the destructor would
  // wait for requests.
  bool end(std::chrono::steady_clock::time_point until);

  void fetch_ahead(const std::weak_ptr<const CachedSource>& source, uint64_t first,
                   uint64_t count) override;

  static constexpr unsigned kThreads = 3;
  static constexpr size_t kMaxQueued = 64;

 private:
  struct Job {
    std::weak_ptr<const CachedSource> source;
    BlockRun run;
  };
  void work();
  void keep();
  Job next_piece();

  DiskCache& cache_;
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<Job> queue_;
  bool started_ = false;
  std::atomic<bool> ending_ = false;  // set under the mutex
  EndingThreads threads_;             // not under the mutex; ends before the rest
};

}  // namespace underlay
