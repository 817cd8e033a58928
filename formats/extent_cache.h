// Where guest bytes lie, remembered for whole chains: a read that was mapped before costs the same
// in every format, and however many parents the image has.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "formats/extent.h"

namespace underlay {

// A fixed number of runs, the newer taking the place of older ones. Thread-safe, without locks:
// each slot is a sequence lock, and who finds it being written goes without it.
class ExtentCache {
 public:
  // A run of guest bytes of one disk.
  struct Run {
    uint64_t start = 0;  // guest offset of its first byte
    Extent extent;       // what map() says at `start`
  };

  // Takes at most `budget` bytes, and at least two slots.
  explicit ExtentCache(uint64_t budget);

  // The run that holds `offset`, if it was put under the same `owner` and `unit`. What is found is
  // what was put: images are immutable, and an owner's number is never given again.
  std::optional<Run> find(uint64_t owner, uint64_t unit, uint64_t offset) const;

  // Remembers the run for the offsets of `unit`, a number of the owner's for a part of its disk.
  // Runs that do not fit into a slot's fields are not remembered.
  void put(uint64_t owner, uint64_t unit, const Run& run);

 private:
  struct alignas(64) Slot {
    std::atomic<uint64_t> sequence = 0;  // odd while it is written
    std::atomic<uint64_t> owner = 0;     // 0: empty
    std::atomic<uint64_t> start = 0;
    std::atomic<uint64_t> source = 0;  // the pointer
    std::atomic<uint64_t> source_offset = 0;
    std::atomic<uint64_t> cluster_start = 0;
    std::atomic<uint64_t> lengths = 0;  // of the run, and of its unpacked cluster: 32 bits each
    std::atomic<uint64_t> rest = 0;     // stored length 32, depth 16, kind 8, reserved 8 bits
  };
  static std::optional<Run> read(const Slot& slot, uint64_t owner, uint64_t offset);
  static bool write(Slot& slot, uint64_t owner, const Run& run);
  size_t first_slot(uint64_t owner, uint64_t unit) const;

  // Each unit has two neighbouring slots to lie in.
  size_t mask_;  // of the slots' numbers; their number is a power of two
  std::unique_ptr<Slot[]> slots_;
  std::atomic<uint32_t> turn_ = 0;  // which of the two is given up next
};

}  // namespace underlay
