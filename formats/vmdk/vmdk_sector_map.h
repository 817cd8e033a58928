// Which sectors of an extent's file are used, in a window of the file: two bits for each, so that
// memory does not grow with the file.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace underlay {

class VmdkSectorMap {
 public:
  // 64 MiB of memory for 128 GiB of the file: one pass for most images.
  static constexpr uint64_t kWindowSectors = 1 << 28;

  explicit VmdkSectorMap(uint64_t file_sectors, uint64_t window_sectors = kWindowSectors);

  uint64_t windows() const { return windows_; }  // at least one

  // Goes to a window, of which nothing is used yet.
  void begin(uint64_t window);
  uint64_t first() const { return first_; }  // sector
  uint64_t end() const { return end_; }
  bool holds(uint64_t sector) const { return sector >= first_ && sector < end_; }

  // Marks those of the sectors that lie in the window. Was one of them marked already? The end may
  // lie behind any file, but not behind 2^64.
  bool mark(uint64_t sector, uint64_t count);
  // The same of a sector at which a grain begins.
  bool mark_start(uint64_t sector);

  // The first run of unmarked sectors of the window at or behind `from`.
  struct Run {
    uint64_t first = 0;
    uint64_t end = 0;
  };
  std::optional<Run> unmarked(uint64_t from) const;

 private:
  uint64_t next(uint64_t from, bool marked) const;

  uint64_t file_sectors_;
  uint64_t window_sectors_;
  uint64_t windows_;
  uint64_t first_ = 0;
  uint64_t end_ = 0;
  std::vector<uint64_t> used_;
  std::vector<uint64_t> starts_;
};

}  // namespace underlay
