#include "tools/img/ordered_reads.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

// How often a consumer that waits looks whether it was interrupted.
constexpr std::chrono::milliseconds kInterruptionInterval{50};

// One reads while another plans, or waits for a device.
constexpr unsigned kFirstThreads = 2;
// How long the consumer waits before another thread helps: longer than it takes to copy a part.
constexpr std::chrono::milliseconds kPatience{1};

uint64_t part_bytes_of(const Disk& disk, uint64_t least, uint64_t unit) {
  uint64_t bytes = std::max(least, unit);
  for (const Layer& layer : disk.layers()) {
    const uint64_t cluster = layer.reader->cluster_size();
    if (cluster <= OrderedReads::kLargestPart && is_aligned(cluster, unit)) {
      bytes = std::max(bytes, cluster);
    }
  }
  return bytes;
}

// One that is busy with a part has another one ready; and on a machine that others use, too, nobody
// waits for somebody who has no processor at the moment.
size_t ahead_with(size_t threads) {
  return std::max(2 * threads + 1, OrderedReads::kLeastAhead);
}

size_t slots_for(unsigned threads, uint64_t part_bytes) {
  return std::min<size_t>(ahead_with(threads), OrderedReads::kBufferBudget / part_bytes);
}

}  // namespace

unsigned ReadSettings::default_threads() {
  return std::clamp(std::thread::hardware_concurrency(), 2u, OrderedReads::kMostThreads);
}

OrderedReads::OrderedReads(const Disk& disk, uint64_t offset, uint64_t length,
                           ReadSettings settings)
    : disk_(disk),
      settings_(std::move(settings)),
      part_bytes_(part_bytes_of(disk, settings_.part, settings_.unit)),
      plan_(disk, offset, length, settings_.unit, part_bytes_),
      slots_(slots_for(settings_.threads, part_bytes_)) {
  assert(settings_.threads > 0 && is_aligned(part_bytes_, settings_.unit));
  assert(part_bytes_ <= kLargestPart);
  rooms_.reserve(slots_.size());
  const std::lock_guard lock(mutex_);
  while (threads_.size() < std::min(settings_.threads, kFirstThreads)) {
    if (!add_thread()) break;
  }
}

// False when there are no more: fewer will do, but one. REQUIRES: mutex_ is held.
bool OrderedReads::add_thread() {
  try {
    threads_.emplace_back([this, i = static_cast<unsigned>(threads_.size())] { work(i); });
    return true;
  } catch (const std::system_error&) {
    if (threads_.empty()) throw;
    settings_.threads = static_cast<unsigned>(threads_.size());
    return false;
  }
}

OrderedReads::~OrderedReads() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  slot_is_free_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Result<std::optional<DiskPart>> OrderedReads::next() {
  std::unique_lock lock(mutex_);
  if (consumer_has_part_) {
    Slot& slot = slots_[released_ % slots_.size()];
    consumer_has_part_ = false;
    if (slot.error) {
      slot.part.length = 0;
    } else {
      release(slot);
    }
  }
  Slot& slot = slots_[released_ % slots_.size()];
  wait_for(slot, lock);
  if (is_interrupted()) return fail_errno(EINTR, "interrupted");
  if (slot.part.length == 0) {
    if (slot.error) return Failure(*slot.error);
    return std::nullopt;
  }
  consumer_has_part_ = true;
  return part_in(slot);
}

void OrderedReads::release(Slot& slot) {
  if (slot.room) rooms_.push_back(*std::exchange(slot.room, std::nullopt));
  slot.is_ready = false;
  ++released_;
  // Who waits is woken for several parts at once.
  if (planned_ - released_ <= most_ahead() / 2) slot_is_free_.notify_one();
}

// REQUIRES: mutex_ is held.
OrderedReads::Room OrderedReads::take_room() {
  if (rooms_.empty()) return {};
  Room room = std::move(rooms_.back());
  rooms_.pop_back();
  return room;
}

// Until it is ready, or for an interruption.
void OrderedReads::wait_for(const Slot& slot, std::unique_lock<std::mutex>& lock) {
  while (!is_interrupted() && !slot.is_ready) {
    const bool may_grow = threads_.size() < settings_.threads && !is_planned_out_;
    const auto waited =
        slot_is_ready_.wait_for(lock, may_grow ? kPatience : kInterruptionInterval);
    if (may_grow && waited == std::cv_status::timeout && !slot.is_ready && add_thread()) {
      slot_is_free_.notify_one();
    }
  }
}

// Parts that may be planned and not yet released. REQUIRES: mutex_ is held.
size_t OrderedReads::most_ahead() const {
  return std::min(slots_.size(), ahead_with(threads_.size()));
}

DiskPart OrderedReads::part_in(const Slot& slot) {
  DiskPart part{.offset = slot.part.offset,
                .length = slot.part.length,
                .stored = slot.part.stored,
                .bytes = {},
                .product = {}};
  if (!slot.part.is_zero) {
    part.bytes = {slot.room->bytes.get(), static_cast<size_t>(part.length)};
    part.product = slot.room->product;
  }
  return part;
}

void OrderedReads::work(unsigned thread) {
  while (Slot* const slot = take_part()) {
    auto filled = without_exceptions([&] { return fill(*slot, thread); });
    const std::lock_guard lock(mutex_);
    slot->is_ready = true;
    if (!filled) {
      slot->error = std::move(filled).error();
      is_planned_out_ = true;
      slot_is_free_.notify_all();
    }
    slot_is_ready_.notify_one();
  }
}

// The next part that must be read, in its slot; null when there is nothing more to do.
OrderedReads::Slot* OrderedReads::take_part() {
  const std::lock_guard planning(plan_mutex_);
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      slot_is_free_.wait(lock, [&] {
        return is_stopping_ || is_planned_out_ || planned_ - released_ < most_ahead();
      });
      if (is_stopping_ || is_planned_out_) return nullptr;
    }
    auto part = without_exceptions([&] { return plan_.next(); });
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[planned_++ % slots_.size()];
    slot.part = part && *part ? **part : ReadPlan::Part{};
    if (slot.part.length > 0 && !slot.part.is_zero) {
      slot.room = take_room();
      return &slot;
    }
    slot.is_ready = true;
    slot_is_ready_.notify_one();
    if (slot.part.length > 0) continue;
    if (!part) slot.error = std::move(part).error();
    is_planned_out_ = true;
    return nullptr;
  }
}

// On failure, slot.part is what lies before it.
Result<void> OrderedReads::fill(Slot& slot, unsigned thread) const {
  auto read = read_part(slot);
  if (!settings_.work || slot.part.length == 0) return read;
  const DiskPart part = part_in(slot);
  slot.part.length = 0;
  TRY(settings_.work(thread, part, slot.room->product));
  slot.part.length = part.length;
  return read;
}

Result<void> OrderedReads::read_part(Slot& slot) const {
  const ReadPlan::Part part = slot.part;
  slot.part.length = slot.part.stored = 0;
  if (!slot.room->bytes) {
    slot.room->bytes = std::make_unique_for_overwrite<std::byte[]>(part_bytes_);
  }
  const MutableByteSpan bytes(slot.room->bytes.get(), static_cast<size_t>(part.length));
  if (disk_.read(part.offset, bytes)) {
    slot.part = part;
    return {};
  }
  // It failed somewhere.
  ReadPlan units(disk_, part.offset, part.length, settings_.unit, settings_.unit);
  while (const auto unit = TRY(units.next())) {
    const auto in_unit = bytes.subspan(static_cast<size_t>(unit->offset - part.offset),
                                       static_cast<size_t>(unit->length));
    TRY(disk_.read(unit->offset, in_unit));
    slot.part.length += unit->length;
    slot.part.stored += unit->stored;
  }
  return {};
}

}  // namespace underlay::img
