#include "io/cache/background_fetches.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr std::chrono::seconds kKeep{1};

}  // namespace

BackgroundFetches::~BackgroundFetches() {
  (void)end(std::chrono::steady_clock::now());
  for (std::thread& thread : threads_) thread.join();
}

bool BackgroundFetches::end(std::chrono::steady_clock::time_point until) {
  std::unique_lock lock(mutex_);
  ending_ = true;
  queue_.clear();
  wake_.notify_all();
  return ended_.wait_until(lock, until, [&] { return running_ == 0; });
}

void BackgroundFetches::start() {
  {
    const std::lock_guard lock(mutex_);
    started_ = true;
    running_ = kThreads + 1;
  }
  for (unsigned i = 0; i < kThreads; ++i) {
    threads_.emplace_back([this] { run(&BackgroundFetches::work); });
  }
  threads_.emplace_back([this] { run(&BackgroundFetches::keep); });
}

void BackgroundFetches::run(void (BackgroundFetches::*loop)()) {
  (this->*loop)();
  const std::lock_guard lock(mutex_);
  --running_;
  ended_.notify_all();
}

void BackgroundFetches::fetch_ahead(const std::weak_ptr<const CachedSource>& source, uint64_t first,
                                    uint64_t count) {
  {
    const std::lock_guard lock(mutex_);
    if (!started_ || ending_ || queue_.size() >= kMaxQueued) return;
    queue_.push_back({.source = source, .first = first, .count = count});
  }
  wake_.notify_all();
}

// As much as one request brings: other threads go on with the rest. Under the mutex.
BackgroundFetches::Job BackgroundFetches::next_piece() {
  Job& job = queue_.front();
  const uint64_t end = std::min(job.first + job.count, (job.first / CachedSource::kMostBlocks + 1) *
                                                           CachedSource::kMostBlocks);
  Job piece{.source = job.source, .first = job.first, .count = end - job.first};
  job.count -= piece.count;
  job.first = end;
  if (job.count == 0) queue_.pop_front();
  return piece;
}

void BackgroundFetches::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return ending_ || !queue_.empty(); });
    if (ending_) return;
    Job piece = next_piece();
    lock.unlock();
    if (const auto source = piece.source.lock()) {
      const uint64_t end = piece.first + piece.count;
      // A failure is told to whoever reads these bytes, and meets it again.
      while (piece.first < end && !ending_) {
        const auto fetched =
            without_exceptions([&] { return source->fetch(piece.first, end - piece.first); });
        if (!fetched) break;
        piece.first = fetched->next;
      }
    }
    lock.lock();
  }
}

void BackgroundFetches::keep() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kKeep, [&] { return ending_.load(); })) {
    lock.unlock();
    cache_.keep();
    lock.lock();
  }
}

}  // namespace underlay
