#include "io/cache/prefetcher.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr std::chrono::seconds kTick{1};         // between looks at records
constexpr std::chrono::seconds kRemoteAway{10};  // before a source that failed is tried again
// To look at: of those that are there already. The server may be asked to end meanwhile.
constexpr uint64_t kBlocksAtOnce = 4096;

}  // namespace

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
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
  thread_ = std::thread([this] { run(); });
}

void Prefetcher::run() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    for (Recording& recording : recordings_) recording.record->begin();
    save_records(lock, false);
    if (ending_) break;
    if (queue_.empty()) {
      pause(lock, kTick);
    } else {
      fetch_next(lock);
    }
  }
  save_records(lock, true);
}

// What one request brings, of the image whose turn it is.
void Prefetcher::fetch_next(std::unique_lock<std::mutex>& lock) {
  Work work = std::move(queue_.front());
  queue_.pop_front();
  lock.unlock();
  auto source = work.source.lock();
  Clock::duration time{};
  if (source && !work.runs.empty()) {
    BlockRun& run = work.runs.front();
    const uint64_t count = std::min(run.count, kBlocksAtOnce);
    const auto fetched = without_exceptions([&] { return source->fetch(run.first, count); });
    if (fetched) {
      time = std::chrono::nanoseconds(1'000'000'000 * fetched->bytes / config_.rate);
      run.count -= std::min(run.count, fetched->next - run.first);
      run.first = fetched->next;
      if (run.count == 0) work.runs.erase(work.runs.begin());
    } else {
      time = kRemoteAway;
    }
  }
  const bool goes_on = source && !work.runs.empty();
  source.reset();  // outside the lock: it may be the last to hold it
  lock.lock();
  if (goes_on) queue_.push_back(std::move(work));
  pause(lock, time);
}

void Prefetcher::pause(std::unique_lock<std::mutex>& lock, Clock::duration time) {
  (void)wake_.wait_for(lock, time, [&] { return ending_; });
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
