// Which blocks of a part have data, and which are zeros: what threads find out for writers that
// store bytes as they are.
#pragma once

#include <functional>
#include <vector>

#include "formats/writing/sink.h"

namespace underlay {

class DataBlocks {
 public:
  // `zero_block`: as DiskToWrite has it.
  explicit DataBlocks(uint64_t zero_block);

  // Of what the parts must be multiples.
  uint64_t unit() const { return unit_; }

  // Fills `marks`: one byte for each block.
  void mark(ByteSpan bytes, std::vector<std::byte>& marks) const;
  // Takes the marks of a part of `size` bytes off the front of `prepared`.
  ByteSpan take_marks(size_t size, ByteSpan& prepared) const;

  // Calls `store` with the runs of data in a part at `offset` of the disk, in order, none of which
  // reaches over a multiple of `limit` of the disk. Fails as `store` fails.
  using Store = std::function<Result<void>(uint64_t offset, ByteSpan bytes)>;
  Result<void> each_run(ByteSpan marks, uint64_t offset, ByteSpan bytes, uint64_t limit,
                        const Store& store) const;

 private:
  size_t block_;
  bool all_data_;
  uint64_t unit_;
};

// Joins writes of neighbouring bytes into large ones. What is added lies in one part, in which the
// bytes follow each other, too, when their places do.
class JoinedWrites {
 public:
  explicit JoinedWrites(Sink& sink) : sink_(sink) {}
  Result<void> add(uint64_t offset, ByteSpan bytes);
  // What was added is written. To be called before the part is gone.
  Result<void> flush();

 private:
  Sink& sink_;
  uint64_t offset_ = 0;
  ByteSpan bytes_;
};

}  // namespace underlay
