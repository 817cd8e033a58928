// The extents of a disk as qemu-img map tells them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "formats/disk.h"
#include "tools/common/progress.h"

namespace underlay::img {

// Fields as those of qemu-img's JSON.
struct MapEntry {
  uint64_t start = 0;  // byte of the disk
  uint64_t length = 0;
  uint64_t depth = 0;  // which image it is in: 0 = the top one, 1 = its parent, ...
  bool present =
      false;          // false: in no image of the chain; `depth` tells the last one that was asked
  bool zero = false;  // known to read as zeros
  bool data = false;  // stored
  bool compressed = false;
  std::optional<uint64_t> offset{};  // in the file: where the bytes lie as they are
  std::string_view filename{};       // of that file, "" for none; lives as long as the disk
};

// Bytes of a disk that are asked about at once: whoever interrupts is not to wait for all of an
// export that is zeros, which answers for so many in one reply.
inline constexpr uint64_t kMapStep = uint64_t{4} << 30;

// Calls `sink` for what lies in [start, end), neighbours merged as qemu-img does; once, with a
// length of 0, when nothing does. Nothing is kept. Ends with the first error, of the disk or of
// `sink`; what was found before the disk's has gone to `sink` then. EINTR when the operator wants
// it to end. `progress` may be null.
Result<void> each_map_entry(const Disk& disk, uint64_t start, uint64_t end, Progress* progress,
                            const std::function<Result<void>(const MapEntry&)>& sink);

}  // namespace underlay::img
