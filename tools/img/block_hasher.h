// Digests of the blocks of a hash tree.
#pragma once

#include <vector>

#include "tools/img/hash_tree_layout.h"

namespace underlay::img {

// Used by one thread at a time.
class BlockHasher {
 public:
  static Result<BlockHasher> create(const HashTreeSuperblock& superblock);

  // The digest of one block, data or hash. REQUIRES: out.size() == digest_bytes().
  Result<void> hash(ByteSpan block, MutableByteSpan out);
  Result<ShortBytes> hash(ByteSpan block);

  size_t digest_bytes() const { return hasher_.digest_bytes(); }

 private:
  BlockHasher(Hasher hasher, const ShortBytes& salt) : hasher_(std::move(hasher)), salt_(salt) {}

  Hasher hasher_;
  ShortBytes salt_;
};

// What is known of a tree whose data blocks are all zeros: in each level all hash blocks are equal,
// but for the last.
struct ZeroTree {
  struct Level {
    std::vector<std::byte> block;  // a whole hash block of it
    ShortBytes digest;             // of that
  };
  static Result<ZeroTree> of(const HashTreeSuperblock& superblock, const HashTreeLayout& layout);

  ShortBytes data_digest;     // of a data block
  std::vector<Level> levels;  // level 0 first, as in the layout
};

// The digests of data blocks, one behind the other, computed by several threads.
class DataHasher {
 public:
  static Result<DataHasher> create(const HashTreeSuperblock& superblock,
                                   const ShortBytes& zero_digest, unsigned threads);

  // Fills `digests` for all whole data blocks in `bytes`. Blocks of zeros are not hashed.
  // REQUIRES: thread < threads, and no other call for this thread meanwhile.
  Result<void> hash(unsigned thread, ByteSpan bytes, std::vector<std::byte>& digests);

 private:
  DataHasher(uint32_t block_size, const ShortBytes& zero_digest)
      : block_size_(block_size), zero_digest_(zero_digest) {}

  uint32_t block_size_;
  ShortBytes zero_digest_;
  std::vector<BlockHasher> hashers_;  // one for each thread
};

}  // namespace underlay::img
