// Verifies digests of a disk's blocks against a hash tree, which nobody trusts: what is used of it
// was verified before, up to the root hash. One hash block of each level is in memory.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "io/source.h"
#include "tools/img/block_hasher.h"

namespace underlay::img {

// A range of the disk that is not what the root hash stands for, as far as can be known.
struct TreeDamage {
  enum class Kind : uint8_t {
    kData,  // its digests differ
    kTree,  // its digests are not known: hash blocks are damaged
  };
  Kind kind = Kind::kData;
  uint64_t offset = 0;
  uint64_t length = 0;
  // kTree: the damaged hash blocks.
  uint64_t tree_offset = 0;
  uint64_t tree_length = 0;
};

// Used by one thread.
class HashTreeVerifier {
 public:
  // Gets what was found, in the order of the disk; neighbours of one kind are one.
  using Report = std::function<void(const TreeDamage&)>;

  // What is given outlives this. REQUIRES: layout.end <= tree.size().
  static Result<HashTreeVerifier> create(const Source& tree, const HashTreeSuperblock& superblock,
                                         const HashTreeLayout& layout, const ZeroTree& zeros,
                                         const ShortBytes& root, Report report);

  // The root hash that the tree has by itself, be it right or not; that which is wanted when the
  // disk is one block and so has no tree.
  Result<ShortBytes> root_of_tree();

  // The digests of the next data blocks, one behind the other. Fails when the tree's file cannot be
  // read.
  // REQUIRES: no more than superblock.data_blocks, all together.
  Result<void> check(ByteSpan digests);
  Result<void> check_zeros(uint64_t blocks);
  // After all: reports what was found last.
  void finish();

 private:
  struct Level {
    uint64_t index = UINT64_MAX;  // of the block in memory
    bool is_good = false;         // verified, up to the root hash
    bool is_zeros = false;        // all below is zeros
    std::vector<std::byte> block;
  };
  HashTreeVerifier(const Source& tree, const HashTreeSuperblock& superblock,
                   const HashTreeLayout& layout, const ZeroTree& zeros, const ShortBytes& root,
                   Report report, BlockHasher hasher);

  Result<void> load(size_t level, uint64_t index);
  Result<void> load_path(uint64_t data_block);
  ByteSpan digest_in(size_t level, uint64_t child) const;
  Result<void> check_one(ByteSpan digest);
  void found_data(uint64_t block);
  void found_tree(size_t level, uint64_t index);
  void found(const TreeDamage& damage);

  const Source& tree_;
  const HashTreeSuperblock& superblock_;
  const HashTreeLayout& layout_;
  const ZeroTree& zeros_;
  ShortBytes root_;
  Report report_;
  BlockHasher hasher_;
  std::vector<Level> levels_;
  uint64_t next_ = 0;  // data block
  std::optional<TreeDamage> last_;
};

}  // namespace underlay::img
