#include "tools/img/block_hasher.h"

#include <algorithm>

namespace underlay::img {
Result<BlockHasher> BlockHasher::create(const HashTreeSuperblock& superblock) {
  return BlockHasher(TRY(Hasher::create(superblock.algorithm)), superblock.salt);
}

Result<void> BlockHasher::hash(ByteSpan block, MutableByteSpan out) {
  TRY(hasher_.begin());
  if (salt_.size() > 0) TRY(hasher_.update(salt_.bytes()));
  TRY(hasher_.update(block));
  return hasher_.finish(out);
}

Result<ShortBytes> BlockHasher::hash(ByteSpan block) {
  ShortBytes digest(digest_bytes());
  TRY(hash(block, digest.bytes()));
  return digest;
}

Result<ZeroTree> ZeroTree::of(const HashTreeSuperblock& superblock, const HashTreeLayout& layout) {
  BlockHasher hasher = TRY(BlockHasher::create(superblock));
  ZeroTree tree;
  tree.data_digest = TRY(hasher.hash(std::vector<std::byte>(superblock.data_block_size)));
  ShortBytes below = tree.data_digest;
  for (size_t i = 0; i < layout.levels.size(); ++i) {
    Level level;
    level.block.resize(superblock.hash_block_size);
    for (uint64_t slot = 0; slot < layout.slots; ++slot) {
      std::ranges::copy(below.bytes(), level.block.begin() +
                                           static_cast<std::ptrdiff_t>(slot * layout.slot_bytes));
    }
    level.digest = TRY(hasher.hash(level.block));
    below = level.digest;
    tree.levels.push_back(std::move(level));
  }
  return tree;
}

Result<DataHasher> DataHasher::create(const HashTreeSuperblock& superblock,
                                      const ShortBytes& zero_digest, unsigned threads) {
  DataHasher hasher(superblock.data_block_size, zero_digest);
  for (unsigned i = 0; i < threads; ++i) {
    hasher.hashers_.push_back(TRY(BlockHasher::create(superblock)));
  }
  return hasher;
}

Result<void> DataHasher::hash(unsigned thread, ByteSpan bytes, std::vector<std::byte>& digests) {
  BlockHasher& hasher = hashers_[thread];
  const size_t digest_bytes = hasher.digest_bytes();
  const size_t blocks = bytes.size() / block_size_;
  digests.resize(blocks * digest_bytes);
  for (size_t i = 0; i < blocks; ++i) {
    const ByteSpan block = bytes.subspan(i * block_size_, block_size_);
    const auto digest = MutableByteSpan(digests).subspan(i * digest_bytes, digest_bytes);
    if (is_zero(block)) {
      std::ranges::copy(zero_digest_.bytes(), digest.begin());
    } else {
      TRY(hasher.hash(block, digest));
    }
  }
  return {};
}

}  // namespace underlay::img
