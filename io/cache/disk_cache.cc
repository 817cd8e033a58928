#include "io/cache/disk_cache.h"

#include <algorithm>
#include <cassert>

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;

// After a failure to store (a full disk, say), blocks are not kept for a while; and the log is not
// filled with what goes on failing.
constexpr std::chrono::seconds kStorePause{10};
constexpr std::chrono::seconds kLogPause{60};

uint64_t group_number(uint64_t block) { return block / kGroupBlocks; }
unsigned place_in_group(uint64_t block) { return static_cast<unsigned>(block % kGroupBlocks); }

int64_t ticks(Clock::time_point time) { return time.time_since_epoch().count(); }

void add(std::atomic<uint64_t>& counter, uint64_t count) {
  counter.fetch_add(count, std::memory_order_relaxed);
}

}  // namespace

DiskCache::DiskCache(const Config& config, std::unique_ptr<CacheDirectory> directory, Log& log)
    : touch_interval_(config.touch_interval), directory_(std::move(directory)), log_(log) {}

Result<std::unique_ptr<DiskCache>> DiskCache::open(const Config& config, Log& log) {
  auto directory = TRY(CacheDirectory::open(config.path, config.limit, config.owner));
  if (!directory->is_writable()) {
    log.warn(fmt::format("{}: the cache's folder cannot be written to: nothing is added to it",
                         printable(config.path)));
  } else if (const auto counted = directory->trim(config.limit); !counted) {
    // It is counted once there is something to store.
    log.warn(fmt::format("the cache cannot be counted: {}", counted.error().to_string()));
  }
  return std::unique_ptr<DiskCache>(new DiskCache(config, std::move(directory), log));
}

CacheObject DiskCache::object(ObjectFacts facts) {
  const std::lock_guard lock(groups_mutex_);
  // Not by the name, which two objects may share: their files then say whose they are.
  const auto [number, is_new] = numbers_.try_emplace({facts.id, facts.size}, numbers_.size());
  std::string name = object_name(facts);
  return {std::move(facts), std::move(name), number->second};
}

std::shared_ptr<CacheGroup> DiskCache::find_open(Key key) {
  const std::lock_guard lock(groups_mutex_);
  const auto found = groups_.find(key);
  if (found == groups_.end()) return nullptr;
  found->second.used = ++uses_;
  return found->second.group;
}

// Null when it is not there, or cannot be had.
std::shared_ptr<CacheGroup> DiskCache::group_of(const CacheObject& object, uint64_t block,
                                                CacheGroup::Make make) {
  const Key key{.object = object.number(), .group = group_number(block)};
  if (auto group = find_open(key)) return group;
  if (object.facts().id.size() > kMaxContentId) return nullptr;
  const CacheFileName name{.object = object.name(), .group = key.group};
  auto opened = CacheGroup::open(directory_->fd(), name.to_string(),
                                 make_group_header(object.facts(), key.group), make);
  if (opened) return keep_open(key, *std::move(opened));
  if (opened.error().kind != ErrorKind::kNotFound) {
    Error error = std::move(opened).error();
    error.file = directory_->path() + "/" + name.to_string();
    // What is wrong with one file is no reason to keep nothing of the others.
    const bool of_all = error.kind != ErrorKind::kDenied;
    fail_softly(error, of_all && make == CacheGroup::Make::kYes);
  }
  return nullptr;
}

// The one that is used by all: another thread may have been faster.
std::shared_ptr<CacheGroup> DiskCache::keep_open(Key key, std::shared_ptr<CacheGroup> group) {
  std::unique_lock lock(groups_mutex_);
  Entry& entry = groups_[key];
  if (!entry.group) entry.group = std::move(group);
  entry.used = ++uses_;
  std::shared_ptr<CacheGroup> kept = entry.group;
  if (groups_.size() > kOpenGroups) {
    retire(std::ranges::min_element(groups_, {}, [](const auto& one) { return one.second.used; }));
    lock.unlock();
    close_retired();
  }
  return kept;
}

// Under the mutex.
void DiskCache::retire(std::unordered_map<Key, Entry, KeyHash>::iterator entry) {
  retired_.push_back(std::move(entry->second.group));
  groups_.erase(entry);
}

void DiskCache::close_retired() {
  std::vector<std::shared_ptr<CacheGroup>> unused;  // closed without the mutex
  const std::lock_guard lock(groups_mutex_);
  const auto end_of_used = std::partition(retired_.begin(), retired_.end(),
                                          [](const auto& group) { return group.use_count() > 1; });
  unused.assign(std::make_move_iterator(end_of_used), std::make_move_iterator(retired_.end()));
  retired_.erase(end_of_used, retired_.end());
}

bool DiskCache::read(const CacheObject& object, uint64_t block, size_t skip, MutableByteSpan out) {
  const auto group = group_of(object, block, CacheGroup::Make::kNo);
  if (!group) return false;
  const auto found = group->read(place_in_group(block), object.block_length(block), skip, out);
  if (!found) {
    fail_softly(in_file(Error(found.error()), directory_->path()).value(), false);
    return false;
  }
  if (*found == CacheGroup::Found::kDamaged) {
    add(counters_.damaged_blocks, 1);
    log_.warn(fmt::format("{}: a damaged block of {} is fetched again (byte {})",
                          printable(directory_->path()), printable(object.facts().id),
                          block * kCacheBlock));
  }
  if (*found != CacheGroup::Found::kYes) return false;
  group->touch(touch_interval_);
  add(counters_.hits, 1);
  add(counters_.hit_bytes, out.size());
  return true;
}

size_t DiskCache::read_now(const CacheObject& object, uint64_t block, size_t skip,
                           MutableByteSpan out) {
  const auto group = find_open({.object = object.number(), .group = group_number(block)});
  if (!group) return 0;
  const size_t got = group->read_now(place_in_group(block), skip, out);
  if (got == 0) return 0;
  add(counters_.hits, 1);
  add(counters_.hit_bytes, got);
  return got;
}

bool DiskCache::has(const CacheObject& object, uint64_t block) {
  const auto group = group_of(object, block, CacheGroup::Make::kNo);
  return group && group->has(place_in_group(block));
}

bool DiskCache::may_store() const {
  return directory_->is_writable() &&
         ticks(Clock::now()) >= stores_again_.load(std::memory_order_relaxed);
}

bool DiskCache::take_room(uint64_t bytes) {
  const std::lock_guard lock(room_mutex_);
  // Whoever had the mutex may have waited in vain: one such wait is enough.
  if (!may_store()) return false;
  if (room_ < bytes) {
    const uint64_t portion = std::max(bytes, std::min(kReserve, directory_->limit() / 16));
    const auto room = directory_->make_room(portion);
    if (!room) {
      fail_softly(room.error(), true);
      return false;
    }
    if (room->evicted) close_evicted();
    if (!room->is_there) return false;
    room_ += portion;
  }
  room_ -= bytes;
  return true;
}

void DiskCache::store(const CacheObject& object, uint64_t block, ByteSpan bytes) {
  assert(bytes.size() == object.block_length(block));
  // Each as if it were the first of its group; the files are counted before any is evicted.
  if (!may_store() || !take_room(kCacheBlock + kGroupData)) return;
  const auto group = group_of(object, block, CacheGroup::Make::kYes);
  if (!group || !group->is_writable()) return;
  const auto stored = group->store(place_in_group(block), bytes);
  if (!stored) {
    fail_softly(in_file(Error(stored.error()), directory_->path()).value(), true);
    return;
  }
  group->touch(touch_interval_);
  add(counters_.stored_bytes, bytes.size());
}

DiskCache::FetchLock DiskCache::lock(const CacheObject& object, uint64_t first, unsigned count,
                                     std::chrono::milliseconds limit) {
  assert(group_number(first) == group_number(first + count - 1));
  if (!may_store()) return {};
  auto group = group_of(object, first, CacheGroup::Make::kYes);
  if (!group) return {};
  FileLock lock = group->lock(place_in_group(first), count, limit);
  return {std::move(group), std::move(lock)};
}

void DiskCache::count_fetch(uint64_t bytes) {
  add(counters_.fetches, 1);
  add(counters_.fetched_bytes, bytes);
}

DiskCacheCounts DiskCache::counts() const {
  return {.hits = counters_.hits,
          .hit_bytes = counters_.hit_bytes,
          .fetches = counters_.fetches,
          .fetched_bytes = counters_.fetched_bytes,
          .stored_bytes = counters_.stored_bytes,
          .damaged_blocks = counters_.damaged_blocks,
          .failures = counters_.failures};
}

Result<uint64_t> DiskCache::trim(uint64_t bytes) {
  auto left = directory_->trim(bytes);
  close_evicted();
  return left;
}

std::vector<std::pair<DiskCache::Key, std::shared_ptr<CacheGroup>>> DiskCache::open_groups() {
  std::vector<std::pair<Key, std::shared_ptr<CacheGroup>>> open;
  const std::lock_guard lock(groups_mutex_);
  open.reserve(groups_.size());
  for (const auto& [key, entry] : groups_) open.emplace_back(key, entry.group);
  return open;
}

// Looks at the files without the mutex, for which nobody waits long.
void DiskCache::close_evicted() {
  for (const auto& [key, group] : open_groups()) {
    if (!group->is_evicted()) continue;
    const std::lock_guard lock(groups_mutex_);
    const auto entry = groups_.find(key);
    if (entry != groups_.end() && entry->second.group == group) retire(entry);
  }
  close_retired();
}

void DiskCache::keep() {
  close_evicted();
  for (const auto& [key, group] : open_groups()) {
    if (const auto kept = group->keep(touch_interval_); !kept) fail_softly(kept.error(), true);
  }
}

void DiskCache::fail_softly(const Error& error, bool of_storing) {
  add(counters_.failures, 1);
  const Clock::time_point now = Clock::now();
  if (of_storing) stores_again_ = ticks(now + kStorePause);
  int64_t speaks = speaks_again_;
  if (ticks(now) < speaks) return;
  if (!speaks_again_.compare_exchange_strong(speaks, ticks(now + kLogPause))) return;
  log_.warn(fmt::format("the cache {}: {}",
                        of_storing ? "cannot keep what is read" : "cannot be read",
                        in_file(error, directory_->path()).value().to_string()));
}

}  // namespace underlay
