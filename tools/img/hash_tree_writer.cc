#include "tools/img/hash_tree_writer.h"

#include <algorithm>
#include <cassert>

namespace underlay::img {
namespace {

// The first bytes of the root hash, as a UUID of version 8 (RFC 9562).
std::array<std::byte, 16> uuid_of(const ShortBytes& root) {
  std::array<std::byte, 16> uuid{};
  std::ranges::copy(root.bytes().first(uuid.size()), uuid.begin());
  uuid[6] = (uuid[6] & std::byte{0x0f}) | std::byte{0x80};
  uuid[8] = (uuid[8] & std::byte{0x3f}) | std::byte{0x80};
  return uuid;
}

}  // namespace

Result<HashTreeWriter> HashTreeWriter::create(const HashTreeSuperblock& superblock,
                                              const HashTreeLayout& layout, const ZeroTree& zeros,
                                              NewFile& file) {
  return HashTreeWriter(superblock, layout, zeros, file, TRY(BlockHasher::create(superblock)));
}

HashTreeWriter::HashTreeWriter(const HashTreeSuperblock& superblock, const HashTreeLayout& layout,
                               const ZeroTree& zeros, NewFile& file, BlockHasher hasher)
    : superblock_(superblock),
      layout_(layout),
      zeros_(zeros),
      file_(file),
      hasher_(std::move(hasher)) {
  for (const HashTreeLevel& level : layout.levels) {
    levels_.push_back({.next_offset = level.offset,
                       .block = std::vector<std::byte>(superblock.hash_block_size),
                       .used = 0});
  }
}

Result<void> HashTreeWriter::add(ByteSpan digests) {
  const size_t size = hasher_.digest_bytes();
  for (; !digests.empty(); digests = digests.subspan(size)) TRY(add_to(0, digests.first(size)));
  return {};
}

Result<void> HashTreeWriter::add_zeros(uint64_t blocks) { return add_zeros_to(0, blocks); }

Result<void> HashTreeWriter::add_to(size_t level, ByteSpan digest) {
  if (level == levels_.size()) {
    root_ = ShortBytes::copy_of(digest);
    return {};
  }
  Level& at = levels_[level];
  const uint64_t slot = at.used * layout_.slot_bytes;
  std::ranges::copy(digest, at.block.begin() + static_cast<std::ptrdiff_t>(slot));
  if (++at.used < layout_.slots) return {};
  return write_block(level);
}

// So many digests of what is all zeros below. Whole blocks of them are known.
Result<void> HashTreeWriter::add_zeros_to(size_t level, uint64_t digests) {
  const ShortBytes& digest = level == 0 ? zeros_.data_digest : zeros_.levels[level - 1].digest;
  while (digests > 0) {
    if (level < levels_.size() && levels_[level].used == 0 && digests >= layout_.slots) {
      const uint64_t blocks = digests / layout_.slots;
      Level& at = levels_[level];
      TRY(file_.write_copies(at.next_offset, zeros_.levels[level].block, blocks));
      at.next_offset += blocks * at.block.size();
      TRY(add_zeros_to(level + 1, blocks));
      digests %= layout_.slots;
    } else {
      TRY(add_to(level, digest.bytes()));
      --digests;
    }
  }
  return {};
}

// The block of the level as it is, with zeros behind the last digest.
Result<void> HashTreeWriter::write_block(size_t level) {
  Level& at = levels_[level];
  TRY(file_.write_at(at.next_offset, at.block));
  const ShortBytes digest = TRY(hasher_.hash(at.block));
  at.next_offset += at.block.size();
  at.used = 0;
  std::ranges::fill(at.block, std::byte{0});
  return add_to(level + 1, digest.bytes());
}

Result<ShortBytes> HashTreeWriter::finish() {
  for (size_t level = 0; level < levels_.size(); ++level) {
    if (levels_[level].used > 0) TRY(write_block(level));
    [[maybe_unused]] const HashTreeLevel& planned = layout_.levels[level];
    assert(levels_[level].next_offset ==
           planned.offset + planned.blocks * superblock_.hash_block_size);
  }
  superblock_.uuid = uuid_of(root_);
  const auto bytes = hash_tree_superblock_bytes(superblock_);
  std::vector<std::byte> block(superblock_.hash_block_size);
  std::ranges::copy(bytes, block.begin());
  TRY(file_.write_at(0, block));
  return root_;
}

}  // namespace underlay::img
