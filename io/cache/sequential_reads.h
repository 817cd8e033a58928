// Notices reads that go on where others ended, and says what will be read next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace underlay {

// Of one source. Not thread-safe.
class SequentialReads {
 public:
  struct Range {
    uint64_t begin = 0;  // bytes
    uint64_t end = 0;
    bool operator==(const Range&) const = default;
  };

  // A read of [offset, offset + length). What to fetch now, never twice for one run of reads; it
  // may lead beyond the end of the source.
  std::optional<Range> note(uint64_t offset, uint64_t length);

  static constexpr uint64_t kFirstWindow = 256 << 10;
  static constexpr uint64_t kMaxWindow = 4 << 20;  // bytes ahead of the last read

 private:
  // How far reads of one run may be out of order, with many of them under way.
  static constexpr uint64_t kDisorder = 256 << 10;
  static constexpr unsigned kReadsOfRun = 3;  // fewer are chance
  static constexpr size_t kRuns = 8;          // clients, or files that one of them reads

  struct Run {
    uint64_t next = 0;   // where the furthest read ended
    uint64_t ahead = 0;  // what lies before is on its way
    uint64_t window = 0;
    unsigned reads = 0;
    uint64_t used = 0;  // uses_ at its last read
  };
  Run& run_of(uint64_t offset);

  std::array<Run, kRuns> runs_;
  uint64_t uses_ = 0;
};

}  // namespace underlay
