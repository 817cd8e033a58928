// Writes a hash tree while the digests of the data come in: one hash block of each level is in
// memory.
#pragma once

#include "tools/img/block_hasher.h"
#include "tools/img/new_file.h"

namespace underlay::img {

// Used by one thread.
class HashTreeWriter {
 public:
  // `superblock` but for the uuid, which comes from the root hash: equal disks have equal trees.
  // What is given outlives this.
  static Result<HashTreeWriter> create(const HashTreeSuperblock& superblock,
                                       const HashTreeLayout& layout, const ZeroTree& zeros,
                                       NewFile& file);

  // The next data blocks' digests, one behind the other.
  // REQUIRES: no more than superblock.data_blocks, all together.
  Result<void> add(ByteSpan digests);
  Result<void> add_zeros(uint64_t blocks);

  // Writes what is left, and the superblock; the root hash.
  // REQUIRES: all data blocks were added.
  Result<ShortBytes> finish();
  const HashTreeSuperblock& superblock() const { return superblock_; }

 private:
  struct Level {
    uint64_t next_offset = 0;  // of the block that is being filled
    std::vector<std::byte> block;
    uint64_t used = 0;  // slots
  };
  HashTreeWriter(const HashTreeSuperblock& superblock, const HashTreeLayout& layout,
                 const ZeroTree& zeros, NewFile& file, BlockHasher hasher);

  Result<void> add_to(size_t level, ByteSpan digest);
  Result<void> add_zeros_to(size_t level, uint64_t digests);
  Result<void> write_block(size_t level);

  HashTreeSuperblock superblock_;
  const HashTreeLayout& layout_;
  const ZeroTree& zeros_;
  NewFile& file_;
  BlockHasher hasher_;
  std::vector<Level> levels_;
  ShortBytes root_;
};

}  // namespace underlay::img
