// Which blocks of a remote image are read first, in their order: what a guest reads while it boots.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "io/bytes.h"

namespace underlay {

struct BlockRun {
  uint64_t first = 0;
  uint64_t count = 0;
  bool operator==(const BlockRun&) const = default;
};

// Thread-safe.
class BootRecord {
 public:
  using Clock = std::chrono::steady_clock;

  // A read of these blocks. Cheap once the record is over.
  void note(uint64_t first, uint64_t end);

  // Serving begins: kTime after the next read the record is over. What was read before is part of
  // it.
  void begin();
  bool is_over(Clock::time_point now) const;
  // Notes no more. What was read; nothing when nobody read since begin().
  std::vector<BlockRun> end();

  static constexpr std::chrono::seconds kTime{60};
  static constexpr uint64_t kMostBlocks = 16 << 10;  // 1 GiB

 private:
  std::atomic<bool> ended_ = false;
  mutable std::mutex mutex_;           // of what follows
  std::unordered_set<uint64_t> read_;  // at most kMostBlocks
  std::vector<BlockRun> runs_;
  bool begun_ = false;
  std::optional<Clock::time_point> first_read_;  // since then
};

// As a file, with a digest. At most BootRecord::kMostBlocks runs.
std::vector<std::byte> boot_file(const std::vector<BlockRun>& runs);
// Nothing when it is damaged, or not of an image of so many blocks.
std::vector<BlockRun> read_boot_file(ByteSpan file, uint64_t blocks);

}  // namespace underlay
