// Going over a whole disk, as commands do that take long: with progress, interruptible, counted.
#pragma once

#include <functional>
#include <string_view>

#include "tools/img/command.h"
#include "tools/img/ordered_reads.h"

namespace underlay::img {

// Bytes of the disk that were dealt with.
struct WalkCounts {
  uint64_t done = 0;
  uint64_t stored = 0;  // of them, those that came out of files: all others are zeros
};

struct WalkManners {
  std::string_view done_word;  // what happens to bytes: "hashed"
  bool quiet = false;          // no progress, also on a terminal
  bool progress = false;       // -p
};
WalkManners walk_manners(const Given& given, std::string_view done_word);

// Calls `take` with all parts of the disk in order; parts of zeros have at most kZeroStep bytes.
// Fails as reading or `take` fails, and when a file of the disk has changed meanwhile; when
// interrupted, with EINTR, after saying how far it got. `counts` is right in any case.
Result<void> walk_disk(const Disk& disk, ReadSettings settings, const WalkManners& manners,
                       WalkCounts& counts,
                       const std::function<Result<void>(const DiskPart&)>& take);

inline constexpr uint64_t kZeroStep = 64 << 20;

}  // namespace underlay::img
