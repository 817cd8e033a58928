#include "formats/extent_cache.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace underlay {
namespace {

constexpr uint64_t kMax32 = std::numeric_limits<uint32_t>::max();

uint64_t pack(uint64_t high, uint64_t low) { return high << 32 | low; }

}  // namespace

ExtentCache::ExtentCache(uint64_t budget)
    : mask_(std::bit_floor(std::max<size_t>(budget / sizeof(Slot), 2)) - 1),
      slots_(std::make_unique<Slot[]>(mask_ + 1)) {}

size_t ExtentCache::first_slot(uint64_t owner, uint64_t unit) const {
  // Multiplicative hashing: neighbouring units are spread, and the high bits are the best ones.
  const uint64_t mixed = (unit + owner * 0x9e3779b97f4a7c15ull) * 0xd6e8feb86659fd93ull;
  return (mixed >> 32) & mask_ & ~size_t{1};
}

// The loads and stores of the fields are ordered by the acquire and release on each of them; on
// x86 that costs nothing.
std::optional<ExtentCache::Run> ExtentCache::read(const Slot& slot, uint64_t owner,
                                                  uint64_t offset) {
  const uint64_t sequence = slot.sequence.load(std::memory_order_acquire);
  if (sequence % 2 != 0 || slot.owner.load(std::memory_order_acquire) != owner) return {};
  Run run;
  run.start = slot.start.load(std::memory_order_acquire);
  const uint64_t source = slot.source.load(std::memory_order_acquire);
  Extent& extent = run.extent;
  extent.source_offset = slot.source_offset.load(std::memory_order_acquire);
  extent.cluster_start = slot.cluster_start.load(std::memory_order_acquire);
  const uint64_t lengths = slot.lengths.load(std::memory_order_acquire);
  const uint64_t rest = slot.rest.load(std::memory_order_acquire);
  if (slot.sequence.load(std::memory_order_relaxed) != sequence) return {};
  extent.source = std::bit_cast<const Source*>(source);
  extent.length = lengths >> 32;
  extent.cluster_length = static_cast<uint32_t>(lengths);
  extent.stored_length = rest >> 32;
  extent.depth = static_cast<uint16_t>(rest >> 16);
  extent.kind = static_cast<Extent::Kind>(static_cast<uint8_t>(rest >> 8));
  extent.reserved = static_cast<uint8_t>(rest) != 0;
  if (offset < run.start || offset - run.start >= extent.length) return {};
  return run;
}

bool ExtentCache::write(Slot& slot, uint64_t owner, const Run& run) {
  uint64_t sequence = slot.sequence.load(std::memory_order_relaxed);
  if (sequence % 2 != 0 ||
      !slot.sequence.compare_exchange_strong(sequence, sequence + 1, std::memory_order_acq_rel)) {
    return false;
  }
  // By name, so that a field that is added to an extent is not forgotten here.
  const auto& [kind, reserved, depth, length, source, source_offset, cluster_start, cluster_length,
               stored_length] = run.extent;
  slot.owner.store(owner, std::memory_order_release);
  slot.start.store(run.start, std::memory_order_release);
  slot.source.store(std::bit_cast<uint64_t>(source), std::memory_order_release);
  slot.source_offset.store(source_offset, std::memory_order_release);
  slot.cluster_start.store(cluster_start, std::memory_order_release);
  slot.lengths.store(pack(length, cluster_length), std::memory_order_release);
  const uint64_t low = uint64_t{depth} << 16 | uint64_t{static_cast<uint8_t>(kind)} << 8 |
                       uint64_t{reserved ? 1u : 0u};
  slot.rest.store(pack(stored_length, low), std::memory_order_release);
  slot.sequence.store(sequence + 2, std::memory_order_release);
  return true;
}

std::optional<ExtentCache::Run> ExtentCache::find(uint64_t owner, uint64_t unit,
                                                  uint64_t offset) const {
  const size_t first = first_slot(owner, unit);
  if (auto run = read(slots_[first], owner, offset)) return run;
  return read(slots_[first + 1], owner, offset);
}

void ExtentCache::put(uint64_t owner, uint64_t unit, const Run& run) {
  if (run.extent.length > kMax32 || run.extent.stored_length > kMax32) return;
  const size_t first = first_slot(owner, unit);
  for (const size_t slot : {first, first + 1}) {
    if (slots_[slot].owner.load(std::memory_order_relaxed) != 0) continue;
    if (write(slots_[slot], owner, run)) return;
  }
  write(slots_[first + turn_.fetch_add(1, std::memory_order_relaxed) % 2], owner, run);
}

}  // namespace underlay
