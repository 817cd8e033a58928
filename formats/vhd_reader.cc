#include "formats/vhd_reader.h"

#include <algorithm>
#include <bit>

namespace underlay::vhd {
namespace {

// Bytes of the disk that lie in the file.
Extent stored(const Source& source, uint64_t source_offset, uint64_t length) {
  Extent extent;
  extent.kind = Extent::Kind::kData;
  extent.length = length;
  extent.source = &source;
  extent.source_offset = source_offset;
  return extent;
}

}  // namespace

Result<Extent> FixedReader::map(uint64_t offset, uint64_t length, MapFor) const {
  return stored(*source_, offset, length);
}

// The first byte of a block (its sector bitmap) in the file, once it is sure that what the disk
// needs of the block lies where blocks may lie.
Result<uint64_t> SparseReader::block_start(uint64_t block, uint32_t entry) const {
  const uint64_t block_size = image_.header.block_size;
  const uint64_t used = std::min(block_size, image_.size - block * block_size);
  const FileRange range{.offset = entry * kSectorBytes, .length = bitmap_bytes_ + used};
  for (const FileRange& metadata : image_.metadata) {
    if (!range.overlaps(metadata)) continue;
    return in_file(fail(ErrorKind::kMalformed,
                        "BAT entry {} is sector {}, where the image has its metadata (bytes {} to "
                        "{}): the image is damaged",
                        block, entry, metadata.offset, metadata.offset + metadata.length - 1),
                   source_->name(), entry_offset(block));
  }
  if (range.offset >= image_.data_end && range.offset < source_->size()) {
    return in_file(fail(ErrorKind::kMalformed,
                        "BAT entry {} is sector {}, where the image has its footer: the image is "
                        "damaged",
                        block, entry),
                   source_->name(), entry_offset(block));
  }
  if (!range_within(range.offset, range.length, image_.data_end)) {
    return in_file(fail(ErrorKind::kTruncated,
                        "BAT entry {} is sector {}: the block ends at byte {}, but blocks end at "
                        "byte {}: the file is truncated or damaged",
                        block, entry, range.offset + range.length, image_.data_end),
                   source_->name(), entry_offset(block));
  }
  return range.offset;
}

Result<void> SparseReader::check_table() const {
  for (uint64_t block = 0; block < blocks();) {
    const MetadataSlice bat = TRY(tables_.slice_at(entry_offset(block), 4, MapFor::kRead));
    for (; block < blocks() && bat.holds(entry_offset(block), 4); ++block) {
      const auto entry = bat.be<uint32_t>(entry_offset(block));
      if (entry != kFreeEntry) TRY(block_start(block, entry));
    }
  }
  return {};
}

Result<Extent> SparseReader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const uint64_t block = offset / image_.header.block_size;
  const uint64_t within = offset % image_.header.block_size;
  const MetadataSlice bat = TRY(tables_.slice_at(entry_offset(block), 4, purpose));
  const auto entry = bat.be<uint32_t>(entry_offset(block));
  if (entry == kFreeEntry) return free_run(bat, offset, length);

  const uint64_t start = TRY(block_start(block, entry));
  length = std::min(length, image_.header.block_size - within);
  if (image_.parent && !TRY(is_full(block, purpose))) {
    const SectorRun run = TRY(sector_run(start, within, length, purpose));
    length = run.length;
    if (!run.present) {
      Extent extent;
      extent.kind = Extent::Kind::kParent;
      extent.length = length;
      return extent;
    }
  }
  return stored(*source_, start + bitmap_bytes_ + within, length);
}

// The run of absent blocks from `offset`, as far as this slice of the BAT tells.
Extent SparseReader::free_run(const MetadataSlice& bat, uint64_t offset, uint64_t length) const {
  const uint64_t block_size = image_.header.block_size;
  uint64_t block = offset / block_size;
  uint64_t run = block_size - offset % block_size;
  for (++block; run < length && bat.holds(entry_offset(block), 4) &&
                bat.be<uint32_t>(entry_offset(block)) == kFreeEntry;
       ++block) {
    run += block_size;
  }
  Extent extent;
  extent.kind = image_.parent ? Extent::Kind::kParent : Extent::Kind::kZero;
  extent.length = std::min(run, length);
  return extent;
}

// tapdisk's batmap: a set bit means that the block has all its sectors.
Result<bool> SparseReader::is_full(uint64_t block, MapFor purpose) const {
  if (!image_.batmap) return false;
  const uint64_t at = image_.batmap->batmap_offset + block / 8;
  const MetadataSlice batmap = TRY(tables_.slice_at(at, 1, purpose));
  return (batmap.be<uint8_t>(at) & (0x80u >> (block % 8))) != 0;
}

// How long the sectors from `within` the block that starts at `start` have the same bit in its
// sector bitmap, as far as one slice of it tells. The first sector is the most significant bit.
Result<SparseReader::SectorRun> SparseReader::sector_run(uint64_t start, uint64_t within,
                                                         uint64_t length, MapFor purpose) const {
  constexpr uint64_t kWordBits = 64;
  uint64_t sector = within / kSectorBytes;
  const uint64_t end = div_round_up(within + length, kSectorBytes);
  const auto word_at = [&] { return start + sector / kWordBits * 8; };
  const MetadataSlice bitmap = TRY(tables_.slice_at(word_at(), 8, purpose));
  const bool present = (bitmap.be<uint64_t>(word_at()) << (sector % kWordBits)) >> 63 != 0;
  while (sector < end && bitmap.holds(word_at(), 8)) {
    const auto word = bitmap.be<uint64_t>(word_at());
    const uint64_t left = kWordBits - sector % kWordBits;
    const auto alike =
        static_cast<uint64_t>(std::countl_one((present ? word : ~word) << (sector % kWordBits)));
    sector += alike;
    if (alike < left) break;
  }
  const uint64_t run_end = std::min(sector * kSectorBytes, within + length);
  return SectorRun{.present = present, .length = run_end - within};
}

}  // namespace underlay::vhd
