#include "io/cache/prefetcher.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr std::chrono::seconds kTick{1};  // between looks at records

}  // namespace

Prefetcher::~Prefetcher() { (void)end(Clock::now()); }

bool Prefetcher::end(Clock::time_point until) {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  return threads_.wait(until);
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
  std::deque<BlockRun> runs;
  if (config_.what == PrefetchWhat::kBoot) {
    const std::vector<BlockRun> remembered = load(object);
    runs.assign(remembered.begin(), remembered.end());
  } else if (object.facts().size <= cache_.directory().limit()) {
    runs = {{.first = 0, .count = object.blocks()}};
  } else {
    cache_.log().warn(fmt::format(
        "{}: is not fetched as a whole: its {} bytes are more than the cache's {} (--cache-size)",
        printable(source->name()), object.facts().size, cache_.directory().limit()));
  }
  const std::lock_guard lock(mutex_);
  if (record) recordings_.push_back({.object = object, .record = std::move(record)});
  if (!runs.empty()) {
    queue_.push_back(std::make_shared<Work>(Work{.source = source, .runs = std::move(runs)}));
  }
  wake_.notify_all();
}

void Prefetcher::start() {
  if (config_.what == PrefetchWhat::kNothing) return;
  {
    const std::lock_guard lock(mutex_);
    for (Recording& recording : recordings_) recording.record->begin();
  }
  threads_.add([this] { keep_records(); });
  for (size_t i = 0; i < kParallel; ++i) threads_.add([this] { fetch_all(); });
}

void Prefetcher::keep_records() {
  std::unique_lock lock(mutex_);
  while (!ending_) {
    for (Recording& recording : recordings_) recording.record->begin();
    save_records(lock, false);
    (void)wake_.wait_for(lock, kTick, [&] { return ending_.load(); });
  }
  save_records(lock, true);
}

void Prefetcher::fetch_all() {
  std::unique_lock lock(mutex_);
  while (const std::optional<Piece> piece = next_piece(lock)) {
    const uint64_t bytes = piece->run.count * kCacheBlock;
    due_ = std::max(due_, Clock::now()) + time_for(bytes);
    lock.unlock();
    const Fetched fetched = fetch(*piece);
    lock.lock();
    due_ -= time_for(bytes - std::min(bytes, fetched.bytes));
    note(*piece, fetched);
  }
}

// Waits until there is something to fetch, and it may be. None: no more.
std::optional<Prefetcher::Piece> Prefetcher::next_piece(std::unique_lock<std::mutex>& lock) {
  while (!ending_) {
    const Clock::time_point now = Clock::now();
    std::optional<Clock::time_point> next;  // when there is something to do
    for (size_t i = 0; i < queue_.size(); ++i) {
      const Work& work = *queue_[i];
      if (work.fails && work.under_way > 0) continue;
      const Clock::time_point at = std::max(due_, work.not_before);
      if (at <= now) return take_piece(i);
      next = next ? std::min(*next, at) : at;
    }
    if (next) {
      wake_.wait_until(lock, *next);
    } else {
      wake_.wait(lock);
    }
  }
  return std::nullopt;
}

// Of the image whose turn it is; the others have theirs before it comes again.
Prefetcher::Piece Prefetcher::take_piece(size_t place) {
  std::shared_ptr<Work> work = std::move(queue_[place]);
  queue_.erase(queue_.begin() + static_cast<ptrdiff_t>(place));
  BlockRun& run = work->runs.front();
  Piece piece{.work = work, .run = CachedSource::take_request(run)};
  if (run.count == 0) work->runs.pop_front();
  ++work->under_way;
  if (!work->runs.empty()) queue_.push_back(std::move(work));
  return piece;
}

Prefetcher::Fetched Prefetcher::fetch(const Piece& piece) const {
  const auto source = piece.work->source.lock();
  if (!source) return {.outcome = Outcome::kUseless};
  const auto bytes = without_exceptions([&] { return source->fetch_run(piece.run, ending_); });
  if (bytes) return {.outcome = Outcome::kFetched, .bytes = *bytes};
  if (source->check_unchanged()) return {.outcome = Outcome::kFailed};
  cache_.log().warn(fmt::format("no more of an image is fetched before it is read: {}",
                                bytes.error().to_string()));
  return {.outcome = Outcome::kUseless};
}

// What came of a piece. Under the mutex.
void Prefetcher::note(const Piece& piece, const Fetched& fetched) {
  Work& work = *piece.work;
  --work.under_way;
  const bool waited_for = work.fails;
  work.fails = fetched.outcome == Outcome::kFailed;
  if (fetched.outcome == Outcome::kUseless) {
    work.runs.clear();
    std::erase(queue_, piece.work);
  } else if (work.fails) {
    // Behind what was not tried yet.
    if (work.runs.empty()) queue_.push_back(piece.work);
    work.runs.push_back(piece.run);
    work.not_before = Clock::now() + config_.pause;
  }
  if (waited_for || work.fails) wake_.notify_all();
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
