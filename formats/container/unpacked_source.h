// What a compressed file unpacks to, as a Source: block by block, through the cache of clusters.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "formats/block_cache.h"
#include "io/source.h"

namespace underlay {

// A part of the file that can be unpacked alone.
struct PackedBlock {
  uint64_t stored_offset = 0;
  uint32_t stored_length = 0;
  uint32_t check = 0;  // what proves its bytes, or what kind of proof it has: the codec's business
  uint64_t start = 0;  // in what is unpacked
  uint32_t length = 0;
};

// Of one block, unpacked: it must be unpacked whole for the smallest read within it.
inline constexpr uint64_t kMaxPackedBlock = 32 << 20;
inline constexpr uint64_t kMaxPackedBlocks = 1 << 20;

// How blocks are unpacked. Thread-safe.
class BlockCodec {
 public:
  virtual ~BlockCodec() = default;

  // Fills all of `out`, which has block.length bytes, from all of `stored`, or fails.
  virtual Result<void> unpack(const PackedBlock& block, ByteSpan stored,
                              MutableByteSpan out) const = 0;
};

// The blocks of a file, in order and without gaps in what they unpack to.
class PackedBlocks {
 public:
  // Fails when one is larger than kMaxPackedBlock, lies beyond the end of the file, or is one too
  // many. Blocks that unpack to nothing are left out.
  Result<void> add(uint64_t stored_offset, uint64_t stored_length, uint64_t length, uint32_t check,
                   uint64_t file_size);

  uint64_t size() const { return size_; }
  // The block that holds the byte `offset`. REQUIRES: offset < size().
  const PackedBlock& at(uint64_t offset) const;

 private:
  std::vector<PackedBlock> blocks_;
  uint64_t size_ = 0;
};

class UnpackedSource final : public Source {
 public:
  // `caches` outlives the source.
  UnpackedSource(std::shared_ptr<const Source> packed, PackedBlocks blocks,
                 std::unique_ptr<const BlockCodec> codec, Caches& caches)
      : packed_(std::move(packed)),
        blocks_(std::move(blocks)),
        codec_(std::move(codec)),
        caches_(caches),
        owner_(caches.new_owner()) {}

  const std::string& name() const override { return packed_->name(); }
  uint64_t size() const override { return blocks_.size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override;
  size_t read_cached(uint64_t offset, MutableByteSpan out) const override;
  const Source& file() const override { return packed_->file(); }
  Result<void> check_unchanged() const override { return packed_->check_unchanged(); }
  bool was_replaced() const override { return packed_->was_replaced(); }
  std::optional<FileIdentity> identity() const override { return packed_->identity(); }

 private:
  // Blocks are larger than the cache likes: it keeps pieces of them.
  struct Piece {
    uint64_t start = 0;
    uint64_t length = 0;
  };
  static Piece piece_at(const PackedBlock& block, uint64_t offset);
  BlockCache::Key key(const Piece& piece) const { return {.owner = owner_, .offset = piece.start}; }
  Result<BlockCache::Handle> load(const PackedBlock& block, const Piece& wanted) const;
  Result<BlockCache::Handle> unpack(const PackedBlock& block, const Piece& wanted) const;

  std::shared_ptr<const Source> packed_;
  PackedBlocks blocks_;
  std::unique_ptr<const BlockCodec> codec_;
  Caches& caches_;
  uint64_t owner_;
  // Whoever unpacks: no block is unpacked twice at a time, and memory is bounded.
  mutable std::array<std::mutex, 2> unpacking_;
};

}  // namespace underlay
