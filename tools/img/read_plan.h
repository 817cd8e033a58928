// Cuts a range of a disk into the parts that are read one by one.
#pragma once

#include <optional>

#include "formats/disk.h"

namespace underlay::img {

// Not thread-safe; cheap to copy. Asks Disk::map() under kStatus, so that holes of the file system
// are zeros, too.
class ReadPlan {
 public:
  struct Part {
    uint64_t offset = 0;  // of the disk
    uint64_t length = 0;  // > 0
    uint64_t stored = 0;  // bytes that lie in files; the others are zeros
    bool is_zero = false;
  };
  // Parts begin `unit` times a whole number behind `offset`. Those with stored bytes end at
  // multiples of `largest` at the latest; runs of whole units of zeros are parts of their own, of
  // any length. `disk` outlives the plan.
  // REQUIRES: offset + length <= disk.size(); unit > 0 divides largest.
  ReadPlan(const Disk& disk, uint64_t offset, uint64_t length, uint64_t unit, uint64_t largest);

  // The next part, nullopt behind the last one. May block. Fails as map() fails at the place where
  // the next part would begin; what lies before it came as parts, the last of them perhaps shorter
  // than a unit.
  Result<std::optional<Part>> next();

 private:
  // All but the disk: counted from the start of the range.
  struct Run {
    uint64_t begin = 0;
    uint64_t end = 0;
    bool is_zero = false;
  };
  Result<Run> run_at(uint64_t at);
  uint64_t zeros_until(uint64_t enough);
  Part stored_part();
  Part part_until(uint64_t end, uint64_t stored);

  const Disk* disk_;
  uint64_t start_;
  uint64_t length_;
  uint64_t unit_;
  uint64_t largest_;
  uint64_t at_ = 0;
  Run run_;  // the one that was asked for last
};

}  // namespace underlay::img
