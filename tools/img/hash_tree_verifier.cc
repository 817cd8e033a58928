#include "tools/img/hash_tree_verifier.h"

#include <algorithm>
#include <cassert>

namespace underlay::img {

Result<HashTreeVerifier> HashTreeVerifier::create(const Source& tree,
                                                  const HashTreeSuperblock& superblock,
                                                  const HashTreeLayout& layout,
                                                  const ZeroTree& zeros, const ShortBytes& root,
                                                  Report report) {
  assert(layout.end <= tree.size());
  return HashTreeVerifier(tree, superblock, layout, zeros, root, std::move(report),
                          TRY(BlockHasher::create(superblock)));
}

HashTreeVerifier::HashTreeVerifier(const Source& tree, const HashTreeSuperblock& superblock,
                                   const HashTreeLayout& layout, const ZeroTree& zeros,
                                   const ShortBytes& root, Report report, BlockHasher hasher)
    : tree_(tree),
      superblock_(superblock),
      layout_(layout),
      zeros_(zeros),
      root_(root),
      report_(std::move(report)),
      hasher_(std::move(hasher)),
      levels_(layout.levels.size()) {
  for (Level& level : levels_) level.block.resize(superblock.hash_block_size);
}

Result<ShortBytes> HashTreeVerifier::root_of_tree() {
  if (levels_.empty()) return root_;
  std::vector<std::byte> top(superblock_.hash_block_size);
  TRY(tree_.read_at(layout_.levels.back().offset, top));
  return hasher_.hash(top);
}

Result<void> HashTreeVerifier::check(ByteSpan digests) {
  const size_t size = hasher_.digest_bytes();
  for (; !digests.empty(); digests = digests.subspan(size)) TRY(check_one(digests.first(size)));
  return {};
}

Result<void> HashTreeVerifier::check_zeros(uint64_t blocks) {
  while (blocks > 0) {
    TRY(load_path(next_));
    const bool whole = !levels_.empty() && next_ % layout_.slots == 0 && blocks >= layout_.slots;
    if (whole && levels_[0].is_good && levels_[0].is_zeros) {
      next_ += layout_.slots;
      blocks -= layout_.slots;
    } else {
      TRY(check_one(zeros_.data_digest.bytes()));
      --blocks;
    }
  }
  return {};
}

Result<void> HashTreeVerifier::check_one(ByteSpan digest) {
  const uint64_t block = next_++;
  TRY(load_path(block));
  if (!levels_.empty() && !levels_[0].is_good) return {};  // was reported with its hash block
  const ByteSpan expected = levels_.empty() ? root_.bytes() : digest_in(0, block);
  if (!std::ranges::equal(digest, expected)) found_data(block);
  return {};
}

// Brings the hash blocks above a data block into memory, the top one first.
Result<void> HashTreeVerifier::load_path(uint64_t data_block) {
  if (levels_.empty() || levels_[0].index == data_block / layout_.slots) return {};
  // From which level on they are there.
  size_t level = 0;
  uint64_t index = data_block / layout_.slots;
  std::vector<uint64_t> missing;
  for (; level < levels_.size() && levels_[level].index != index; ++level) {
    missing.push_back(index);
    index /= layout_.slots;
  }
  while (level-- > 0) TRY(load(level, missing[level]));
  return {};
}

// The block above it is in memory.
Result<void> HashTreeVerifier::load(size_t level, uint64_t index) {
  Level& at = levels_[level];
  const bool is_top = level + 1 == levels_.size();
  at.index = index;
  at.is_good = at.is_zeros = false;
  // What is below a damaged block was reported with that.
  if (!is_top && !levels_[level + 1].is_good) return {};
  const uint64_t offset = layout_.levels[level].offset + index * at.block.size();
  TRY(tree_.read_at(offset, at.block));
  const bool is_zeros = std::ranges::equal(at.block, zeros_.levels[level].block);
  const ShortBytes digest = is_zeros ? zeros_.levels[level].digest : TRY(hasher_.hash(at.block));
  const ByteSpan expected = is_top ? root_.bytes() : digest_in(level + 1, index);
  at.is_good = std::ranges::equal(digest.bytes(), expected);
  at.is_zeros = at.is_good && is_zeros;
  if (!at.is_good) found_tree(level, index);
  return {};
}

// What the block of `level` in memory says of its child, by the child's index.
ByteSpan HashTreeVerifier::digest_in(size_t level, uint64_t child) const {
  return ByteSpan(levels_[level].block)
      .subspan(static_cast<size_t>(child % layout_.slots * layout_.slot_bytes),
               hasher_.digest_bytes());
}

void HashTreeVerifier::found_data(uint64_t block) {
  found({.kind = TreeDamage::Kind::kData,
         .offset = block * superblock_.data_block_size,
         .length = superblock_.data_block_size});
}

void HashTreeVerifier::found_tree(size_t level, uint64_t index) {
  // Data blocks below it: those below all blocks of the level are at least data_blocks.
  uint64_t first = index;
  uint64_t end = index + 1;
  const uint64_t all = superblock_.data_blocks;
  for (size_t i = 0; i <= level; ++i) {
    first *= layout_.slots;
    end = checked_mul(end, layout_.slots).value_or(all);
  }
  end = std::min(end, all);
  found({.kind = TreeDamage::Kind::kTree,
         .offset = first * superblock_.data_block_size,
         .length = (end - first) * superblock_.data_block_size,
         .tree_offset = layout_.levels[level].offset + index * superblock_.hash_block_size,
         .tree_length = superblock_.hash_block_size});
}

void HashTreeVerifier::found(const TreeDamage& damage) {
  if (last_ && last_->kind == damage.kind && last_->offset + last_->length == damage.offset &&
      last_->tree_offset + last_->tree_length == damage.tree_offset) {
    last_->length += damage.length;
    last_->tree_length += damage.tree_length;
    return;
  }
  finish();
  last_ = damage;
}

void HashTreeVerifier::finish() {
  if (last_) report_(*last_);
  last_.reset();
}

}  // namespace underlay::img
