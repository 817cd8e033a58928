#include "formats/container/unpacked_source.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace underlay {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;

// Nothing grows more than this by being compressed: more is a lie.
constexpr uint64_t largest_stored(uint64_t length) { return length + length / 8 + (64 << 10); }

}  // namespace

Result<void> PackedBlocks::add(uint64_t stored_offset, uint64_t stored_length, uint64_t length,
                               uint32_t check, uint64_t file_size) {
  if (!range_within(stored_offset, stored_length, file_size)) {
    return fail(ErrorKind::kTruncated,
                "a block of {} bytes at byte {} reaches beyond the end of the file, {} bytes: it "
                "is truncated or damaged",
                stored_length, stored_offset, file_size);
  }
  if (length > kMaxPackedBlock) {
    return fail(ErrorKind::kLimit, "a block unpacks to {} bytes, more than {}", length,
                kMaxPackedBlock);
  }
  if (stored_length > largest_stored(length)) {
    return fail(ErrorKind::kMalformed, "a block of {} bytes unpacks to only {}", stored_length,
                length);
  }
  if (length == 0) return {};
  if (blocks_.size() == kMaxPackedBlocks) {
    return fail(ErrorKind::kLimit, "it has more than {} blocks", kMaxPackedBlocks);
  }
  blocks_.push_back({.stored_offset = stored_offset,
                     .stored_length = static_cast<uint32_t>(stored_length),
                     .check = check,
                     .start = size_,
                     .length = static_cast<uint32_t>(length)});
  size_ += length;
  return {};
}

const PackedBlock& PackedBlocks::at(uint64_t offset) const {
  assert(offset < size_);
  const auto behind = std::upper_bound(
      blocks_.begin(), blocks_.end(), offset,
      [](uint64_t value, const PackedBlock& block) { return value < block.start; });
  return *(behind - 1);
}

UnpackedSource::Piece UnpackedSource::piece_at(const PackedBlock& block, uint64_t offset) {
  const uint64_t within = (offset - block.start) / kPieceBytes * kPieceBytes;
  return {.start = block.start + within, .length = std::min(kPieceBytes, block.length - within)};
}

Result<void> UnpackedSource::read_at(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "{} bytes lie beyond the end of what it unpacks to, "
                        "{} bytes",
                        out.size(), size()),
                   name(), offset);
  }
  while (!out.empty()) {
    const PackedBlock& block = blocks_.at(offset);
    const Piece piece = piece_at(block, offset);
    const BlockCache::Handle bytes = TRY(load(block, piece));
    const uint64_t skip = offset - piece.start;
    const auto part = static_cast<size_t>(std::min<uint64_t>(piece.length - skip, out.size()));
    std::memcpy(out.data(), bytes->data() + skip, part);
    offset += part;
    out = out.subspan(part);
  }
  return {};
}

size_t UnpackedSource::read_cached(uint64_t offset, MutableByteSpan out) const {
  if (!range_within(offset, out.size(), size())) return 0;
  size_t done = 0;
  while (done < out.size()) {
    const Piece piece = piece_at(blocks_.at(offset + done), offset + done);
    const BlockCache::Handle bytes = caches_.clusters.find(key(piece));
    if (!bytes) break;
    const uint64_t skip = offset + done - piece.start;
    const auto part =
        static_cast<size_t>(std::min<uint64_t>(piece.length - skip, out.size() - done));
    std::memcpy(out.data() + done, bytes->data() + skip, part);
    done += part;
  }
  return done;
}

Result<BlockCache::Handle> UnpackedSource::load(const PackedBlock& block,
                                                const Piece& wanted) const {
  if (BlockCache::Handle bytes = caches_.clusters.find(key(wanted))) return bytes;
  // xz has its blocks at multiples of 4.
  const auto number = static_cast<size_t>(block.stored_offset / 4 % unpacking_.size());
  const std::lock_guard lock(unpacking_[number]);
  if (BlockCache::Handle bytes = caches_.clusters.find(key(wanted))) return bytes;
  auto bytes = without_exceptions([&] { return unpack(block, wanted); });
  if (!bytes) return in_file(std::move(bytes).error(), name(), block.stored_offset);
  return bytes;
}

// Unpacks the block, puts its pieces into the cache, and returns the one that is wanted.
Result<BlockCache::Handle> UnpackedSource::unpack(const PackedBlock& block,
                                                  const Piece& wanted) const {
  const auto stored = std::make_unique_for_overwrite<std::byte[]>(block.stored_length);
  const auto unpacked = std::make_unique_for_overwrite<std::byte[]>(block.length);
  const MutableByteSpan packed_bytes(stored.get(), block.stored_length);
  TRY(packed_->read_at(block.stored_offset, packed_bytes));
  TRY(codec_->unpack(block, packed_bytes, MutableByteSpan(unpacked.get(), block.length)));

  BlockCache::Handle result;
  for (uint64_t within = 0; within < block.length; within += kPieceBytes) {
    const Piece piece = piece_at(block, block.start + within);
    const auto copy = [&](MutableByteSpan out) -> Result<void> {
      std::memcpy(out.data(), unpacked.get() + within, out.size());
      return {};
    };
    BlockCache::Handle kept =
        TRY(caches_.clusters.get(key(piece), static_cast<size_t>(piece.length), copy));
    if (piece.start == wanted.start) result = std::move(kept);
  }
  return result;
}

}  // namespace underlay
