#include "tools/img/ordered_reads.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "tools/common/interruption.h"

namespace underlay::img {
namespace {

// How often a consumer that waits looks whether it was interrupted.
constexpr std::chrono::milliseconds kInterruptionInterval{50};

uint64_t part_bytes_of(const Disk& disk, uint64_t unit) {
  uint64_t bytes = OrderedReads::kPart;
  for (const Layer& layer : disk.layers()) {
    const uint64_t cluster = layer.reader->cluster_size();
    if (cluster <= OrderedReads::kLargestPart && is_aligned(cluster, unit)) {
      bytes = std::max(bytes, cluster);
    }
  }
  return bytes;
}

size_t slots_for(unsigned threads, uint64_t part_bytes) {
  return std::min<size_t>(2 * threads + 1, OrderedReads::kBufferBudget / part_bytes);
}

}  // namespace

unsigned ReadSettings::default_threads() {
  return std::clamp(std::thread::hardware_concurrency(), 2u, OrderedReads::kMostThreads);
}

OrderedReads::OrderedReads(const Disk& disk, uint64_t offset, uint64_t length,
                           ReadSettings settings)
    : disk_(disk),
      settings_(std::move(settings)),
      part_bytes_(part_bytes_of(disk, settings_.unit)),
      plan_(disk, offset, length, settings_.unit, part_bytes_),
      slots_(slots_for(settings_.threads, part_bytes_)) {
  assert(settings_.threads > 0 && is_aligned(kPart, settings_.unit));
  threads_.reserve(settings_.threads);
  for (unsigned i = 0; i < settings_.threads; ++i) {
    try {
      threads_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
      if (threads_.empty()) throw;  // fewer will do
      break;
    }
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
      slot.is_ready = false;
      ++released_;
      slot_is_free_.notify_one();
    }
  }
  Slot& slot = slots_[released_ % slots_.size()];
  while (!is_interrupted() && !slot.is_ready) slot_is_ready_.wait_for(lock, kInterruptionInterval);
  if (is_interrupted()) return fail_errno(EINTR, "interrupted");
  if (slot.part.length == 0) {
    if (slot.error) return Failure(*slot.error);
    return std::nullopt;
  }
  consumer_has_part_ = true;
  return part_in(slot);
}

DiskPart OrderedReads::part_in(const Slot& slot) {
  DiskPart part{.offset = slot.part.offset,
                .length = slot.part.length,
                .stored = slot.part.stored,
                .bytes = {},
                .product = {}};
  if (!slot.part.is_zero) {
    part.bytes = {slot.buffer.get(), static_cast<size_t>(part.length)};
    part.product = slot.product;
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
        return is_stopping_ || is_planned_out_ || planned_ - released_ < slots_.size();
      });
      if (is_stopping_ || is_planned_out_) return nullptr;
    }
    auto part = without_exceptions([&] { return plan_.next(); });
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[planned_++ % slots_.size()];
    slot.part = part && *part ? **part : ReadPlan::Part{};
    if (slot.part.length > 0 && !slot.part.is_zero) return &slot;
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
  TRY(settings_.work(thread, part, slot.product));
  slot.part.length = part.length;
  return read;
}

Result<void> OrderedReads::read_part(Slot& slot) const {
  const ReadPlan::Part part = slot.part;
  slot.part.length = slot.part.stored = 0;
  if (!slot.buffer) slot.buffer = std::make_unique_for_overwrite<std::byte[]>(part_bytes_);
  const MutableByteSpan bytes(slot.buffer.get(), static_cast<size_t>(part.length));
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
