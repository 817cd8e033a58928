// Are two disks equal? Read and compared by several threads; zeros that both images prove are not
// read.
#pragma once

#include <array>
#include <mutex>
#include <optional>

#include "formats/disk.h"
#include "tools/common/progress.h"
#include "tools/img/read_plan.h"

namespace underlay::img {

// How a comparison ended.
struct ComparisonEnd {
  enum class Kind : uint8_t {
    kEqual,
    kDiffers,
    kCannotMap,   // where the bytes lie in one of the images
    kCannotRead,  // what lies there
    kInterrupted,
  };
  Kind kind = Kind::kEqual;
  uint64_t offset = 0;  // kDiffers: of the first byte that differs; kCannot...: where it failed
  size_t side = 0;      // kCannot...: in which of the disks
  Error error{};        // and why

  // Exact, however it ended.
  uint64_t compared = 0;           // bytes of the disks
  std::array<uint64_t, 2> read{};  // bytes of either disk that were read for it
};

// Used by one thread, once.
class ContentComparison {
 public:
  // What a thread takes on at a time, and reads at once where each read costs a round trip.
  static constexpr uint64_t kPiece = 512 << 10;
  // What it reads and compares at a time of files: it stays in the processor's cache from the one
  // to the other. Two of these buffers for each thread are all the memory that is needed.
  static constexpr uint64_t kFileStep = 64 << 10;

  // Of the bytes before `end`. Behind the end of a disk are zeros. The disks outlive this, and so
  // does `progress` (null for none), which the caller has begun.
  ContentComparison(const Disk& first, const Disk& second, uint64_t end, Progress* progress);

  // To the first difference or failure, in the order of offsets; or until is_interrupted().
  // Blocks. REQUIRES: threads > 0.
  ComparisonEnd run(unsigned threads);

 private:
  // What one of the disks has where the comparison is.
  struct Side {
    const Disk& disk;
    ReadPlan plan;
    ReadPlan::Part part{};  // zeros behind the disk's end
  };
  // A range of which at least one side is not proved to be zeros.
  struct Piece {
    uint64_t offset = 0;
    uint64_t length = 0;
    std::array<bool, 2> is_zero{};
  };
  struct Buffers;

  void work();
  std::optional<Piece> take_piece();
  Result<void> plan_part(Side& side) const;
  void compare(Piece piece, Buffers& buffers);
  bool compare_step(const Piece& step, Buffers& buffers);
  bool has_ended();
  void count(const Piece& piece, uint64_t equal_bytes);
  void end_with(ComparisonEnd::Kind kind, uint64_t offset, size_t side = 0, Error error = {});

  const uint64_t length_;
  const uint64_t step_;
  std::array<Side, 2> sides_;  // the plans and parts under plan_mutex_
  std::mutex plan_mutex_;      // taken before mutex_
  uint64_t at_ = 0;            // where the next piece begins

  std::mutex mutex_;  // of all that follows
  ComparisonEnd end_;
  Progress* progress_;
};

}  // namespace underlay::img
