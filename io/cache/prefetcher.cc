#include "io/cache/prefetcher.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr std::chrono::seconds kTick{1};         // between looks at records
constexpr std::chrono::seconds kRemoteAway{10};  // before a source that failed is tried again

}  // namespace

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<BootRecord> Prefetcher::new_record() const {
  return config_.what == PrefetchWhat::kBoot ? std::make_shared<BootRecord>() : nullptr;
}

std::vector<BlockRun> Prefetcher::load(const CacheObject& object) const {
  const auto file = cache_.directory().read_boot_file(object.name());
  return file ? read_boot_file(*file, object.blocks()) : std::vector<BlockRun>();
}

void Prefetcher::add(const std::shared_ptr<const CachedSource>& source,
                     std::shared_ptr<BootRecord> record) {
  if (config_.what == PrefetchWhat::kNothing || source->size() == 0) return;
  const CacheObject& object = source->object();
  Work work{.source = source, .runs = {}};
  if (config_.what == PrefetchWhat::kBoot) {
    work.runs = load(object);
  } else if (object.facts().size <= cache_.directory().limit()) {
    work.runs = {{.first = 0, .count = object.blocks()}};
  } else {
    cache_.log().warn(fmt::format(
        "{}: is not fetched as a whole: its {} bytes are more than the cache's {} (--cache-size)",
        printable(source->name()), object.facts().size, cache_.directory().limit()));
  }
  const std::lock_guard lock(mutex_);
  if (record) recordings_.push_back({.object = object, .record = std::move(record)});
  if (!work.runs.empty()) queue_.push_back(std::move(work));
  wake_.notify_all();
}

void Prefetcher::start() {
  if (config_.what == PrefetchWhat::kNothing) return;
  {
    const std::lock_guard lock(mutex_);
    for (Recording& recording : recordings_) recording.record->begin();
  }
  threads_.emplace_back([this] { keep_records(); });
  for (size_t i = 0; i < kParallel; ++i) threads_.emplace_back([this] { fetch_all(); });
}

void Prefetcher::keep_records() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    for (Recording& recording : recordings_) recording.record->begin();
    save_records(lock, false);
    (void)wake_.wait_for(lock, kTick, [&] { return ending_; });
  }
  save_records(lock, true);
}

void Prefetcher::fetch_all() {
  std::unique_lock lock(mutex_);
  while (has_turn(lock)) {
    const Piece piece = take_piece();
    const uint64_t bytes = piece.run.count * kCacheBlock;
    due_ = std::max(due_, Clock::now()) + time_for(bytes);
    lock.unlock();
    const auto fetched = without_exceptions([&] { return fetch(piece); });
    lock.lock();
    if (fetched) {
      due_ -= time_for(bytes - std::min(bytes, *fetched));
    } else {
      queue_.push_front({.source = piece.source, .runs = {piece.run}});
      due_ = std::max(due_, Clock::now() + kRemoteAway);
    }
  }
}

// Waits until there is something to fetch, and it may be. False: no more.
bool Prefetcher::has_turn(std::unique_lock<std::mutex>& lock) {
  while (!ending_) {
    if (queue_.empty()) {
      wake_.wait(lock);
    } else if (Clock::now() < due_) {
      wake_.wait_until(lock, due_);
    } else {
      return true;
    }
  }
  return false;
}

// Of the image whose turn it is; the others have theirs behind it.
Prefetcher::Piece Prefetcher::take_piece() {
  Work work = std::move(queue_.front());
  queue_.pop_front();
  BlockRun& run = work.runs.front();
  constexpr uint64_t kMost = CachedSource::kMostBlocks;
  Piece piece{.source = work.source,
              .run = {.first = run.first, .count = std::min(run.count, kMost - run.first % kMost)}};
  run.first += piece.run.count;
  run.count -= piece.run.count;
  if (run.count == 0) work.runs.erase(work.runs.begin());
  if (!work.runs.empty() && !work.source.expired()) queue_.push_back(std::move(work));
  return piece;
}

// The bytes that had to be fetched.
Result<uint64_t> Prefetcher::fetch(const Piece& piece) {
  uint64_t bytes = 0;
  const auto source = piece.source.lock();
  const uint64_t end = piece.run.first + piece.run.count;
  for (uint64_t block = piece.run.first; source && block < end;) {
    const auto fetched = TRY(source->fetch(block, end - block));
    block = fetched.next;
    bytes += fetched.bytes;
  }
  return bytes;
}

Prefetcher::Clock::duration Prefetcher::time_for(uint64_t bytes) const {
  constexpr double kNanoseconds = 1e9;
  return std::chrono::nanoseconds(static_cast<int64_t>(kNanoseconds * static_cast<double>(bytes) /
                                                       static_cast<double>(config_.rate)));
}

void Prefetcher::save_records(std::unique_lock<std::mutex>& lock, bool all) {
  const auto now = BootRecord::Clock::now();
  const auto over =
      std::partition(recordings_.begin(), recordings_.end(), [&](const Recording& one) {
        const bool is_open = one.record.use_count() > 1;
        return !all && is_open && !one.record->is_over(now);
      });
  std::vector<Recording> ended(std::make_move_iterator(over),
                               std::make_move_iterator(recordings_.end()));
  recordings_.erase(over, recordings_.end());
  lock.unlock();
  for (Recording& one : ended) {
    const std::vector<BlockRun> runs = one.record->end();
    if (runs.empty()) continue;
    const auto written = cache_.directory().write_boot_file(one.object.name(), boot_file(runs));
    if (!written) cache_.log().warn(written.error().to_string());
  }
  lock.lock();
}

}  // namespace underlay
