// Fetches images before anybody asks for them, no faster than is allowed, until they are local: all
// of them, or what was read of them first when they were served last.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "io/cache/boot_record.h"
#include "io/cache/cached_source.h"
#include "io/cache/ending_threads.h"

namespace underlay {

enum class PrefetchWhat : uint8_t { kNothing, kBoot, kAll };

// Thread-safe.
class Prefetcher {
 public:
  struct Config {
    PrefetchWhat what = PrefetchWhat::kNothing;
    uint64_t rate = 32ull << 20;  // bytes a second, of all images together
    // Before a source that failed is asked again, for one piece at a time; the others go on.
    std::chrono::milliseconds pause{10'000};
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

  using Clock = std::chrono::steady_clock;
  // Begins no more requests; keeps the records that are not over. False when the threads have not
  // ended at `until`: the destructor would wait for requests.
  bool end(Clock::time_point until);

  // Requests under way: servers are far, and one after the other would mostly wait.
  static constexpr size_t kParallel = 8;

 private:
  struct Work {
    std::weak_ptr<const CachedSource> source;
    std::deque<BlockRun> runs;  // that are still to be fetched
    unsigned under_way = 0;     // requests
    bool fails = false;         // the last one did
    Clock::time_point not_before{};
  };
  struct Recording {
    CacheObject object;
    std::shared_ptr<BootRecord> record;
  };
  // What one request brings.
  struct Piece {
    std::shared_ptr<Work> work;
    BlockRun run;
  };
  enum class Outcome : uint8_t { kFetched, kFailed, kUseless };
  struct Fetched {
    Outcome outcome = Outcome::kFetched;
    uint64_t bytes = 0;
  };
  void keep_records();
  void fetch_all();
  std::optional<Piece> next_piece(std::unique_lock<std::mutex>& lock);
  Piece take_piece(size_t place);
  Fetched fetch(const Piece& piece) const;
  void note(const Piece& piece, const Fetched& fetched);
  Clock::duration time_for(uint64_t bytes) const;
  void save_records(std::unique_lock<std::mutex>& lock, bool all);
  std::vector<BlockRun> load(const CacheObject& object) const;

  const Config config_;
  DiskCache& cache_;
  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Work>> queue_;  // those with runs
  std::vector<Recording> recordings_;
  Clock::time_point due_;             // of the next request
  std::atomic<bool> ending_ = false;  // set under the mutex
  EndingThreads threads_;             // not under the mutex; ends before the rest
};

}  // namespace underlay
