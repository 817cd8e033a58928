#include "io/cache/background_fetches.h"

namespace underlay {
namespace {

constexpr std::chrono::seconds kKeep{1};

}  // namespace

BackgroundFetches::~BackgroundFetches() { (void)end(std::chrono::steady_clock::now()); }

bool BackgroundFetches::end(std::chrono::steady_clock::time_point until) {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    queue_.clear();
  }
  wake_.notify_all();
  return threads_.wait(until);
}

void BackgroundFetches::start() {
  {
    const std::lock_guard lock(mutex_);
    started_ = true;
  }
  for (unsigned i = 0; i < kThreads; ++i) threads_.add([this] { work(); });
  threads_.add([this] { keep(); });
}

void BackgroundFetches::fetch_ahead(const std::weak_ptr<const CachedSource>& source, uint64_t first,
                                    uint64_t count) {
  {
    const std::lock_guard lock(mutex_);
    if (!started_ || ending_ || queue_.size() >= kMaxQueued) return;
    queue_.push_back({.source = source, .run = {.first = first, .count = count}});
  }
  wake_.notify_all();
}

// Other threads go on with the rest. Under the mutex.
BackgroundFetches::Job BackgroundFetches::next_piece() {
  Job& job = queue_.front();
  Job piece{.source = job.source, .run = CachedSource::take_request(job.run)};
  if (job.run.count == 0) queue_.pop_front();
  return piece;
}

void BackgroundFetches::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return ending_ || !queue_.empty(); });
    if (ending_) return;
    const Job piece = next_piece();
    lock.unlock();
    if (const auto source = piece.source.lock()) {
      // A failure is told to whoever reads these bytes, and meets it again.
      (void)without_exceptions([&] { return source->fetch_run(piece.run, ending_); });
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
