// The blocks of an image in the order in which they lie in its file, within a fixed memory: who
// goes through them sees blocks that are stored twice, overlaps and gaps.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>

#include "formats/inspection/finding.h"
#include "io/error.h"

namespace underlay {

struct BlockPlace {
  uint64_t place = 0;  // in the file, in units of the format
  uint64_t entry = 0;  // of the table that says so

  auto operator<=>(const BlockPlace&) const = default;
};

// Tells of all blocks, in any order, no entry twice; always the same.
using TellBlock = std::function<void(const BlockPlace&)>;
using TellBlocks = std::function<Result<void>(const TellBlock&)>;
using UseBlock = std::function<Result<void>(const BlockPlace&)>;

// Twice as many are in memory at most, 64 MiB: a disk of 2 TiB in blocks of 1 MiB needs one pass.
inline constexpr size_t kBlocksInAPass = 2 << 20;

// Calls `use` for each block that `tell` tells of, in ascending order of place and entry. Calls
// `tell` once for each `in_a_pass` blocks. Fails as one of them. REQUIRES: in_a_pass > 0.
Result<void> in_ascending_order(const TellBlocks& tell, const UseBlock& use,
                                size_t in_a_pass = kBlocksInAPass);

// Each pass reads the whole table, which may have 2^32 entries in a file that is all holes. The
// largest VHDX, 64 TiB in blocks of 1 MiB, takes all of them.
inline constexpr uint64_t kMaxPasses = 32;

// What a check says, which then does not look for overlaps, when `blocks` need more passes.
std::optional<Finding> too_many_to_order(uint64_t blocks);

}  // namespace underlay
