// The file of a hash tree, as dm-verity and veritysetup(8) have it (the kernel's
// Documentation/admin-guide/device-mapper/verity.rst, "On-disk format", and the superblock of
// cryptsetup's DMVerity wiki page). Hash type 1 alone: type 0 is ChromeOS's old one.
//
//   block 0      1          2 ...                                         (hash blocks)
//   superblock | top level | level below | ... | level 0: the digests of the data blocks |
//
// The digest of a block is hash(salt, block). A hash block has digests, each in a slot whose size
// is a power of two, and zeros behind the last one. The root hash is the digest of the top level's
// only block; of a disk of one data block, that block's.
#pragma once

#include <vector>

#include "tools/img/hasher.h"

namespace underlay::img {

struct HashTreeSuperblock {
  static constexpr size_t kBytes = 512;

  HashAlgorithm algorithm;
  std::array<std::byte, 16> uuid{};
  uint32_t data_block_size = 0;
  uint32_t hash_block_size = 0;
  uint64_t data_blocks = 0;
  ShortBytes salt;
};

// What veritysetup accepts.
inline constexpr uint32_t kSmallestHashedBlock = 512;
inline constexpr uint32_t kLargestHashedBlock = 512 << 10;
bool is_hashed_block_size(uint64_t bytes);

// Checks all fields. kMalformed, or kUnsupported for what only other programs can read.
// REQUIRES: bytes.size() >= kBytes.
Result<HashTreeSuperblock> parse_hash_tree_superblock(ByteSpan bytes);
std::array<std::byte, HashTreeSuperblock::kBytes> hash_tree_superblock_bytes(
    const HashTreeSuperblock& superblock);

struct HashTreeLevel {
  uint64_t offset = 0;  // of its first block in the file
  uint64_t blocks = 0;
};

struct HashTreeLayout {
  // kMalformed when the tree would not fit into 64 bits.
  // REQUIRES: what parse_hash_tree_superblock() checks.
  static Result<HashTreeLayout> of(const HashTreeSuperblock& superblock);

  uint64_t slot_bytes = 0;
  uint64_t slots = 0;                 // in a hash block
  std::vector<HashTreeLevel> levels;  // level 0 first; none for a disk of one block
  uint64_t end = 0;                   // bytes in the file
};

}  // namespace underlay::img
