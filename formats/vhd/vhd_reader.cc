#include "formats/vhd/vhd_reader.h"

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

// The same bytes, each with its bits in the other order.
constexpr uint64_t with_bits_reversed(uint64_t word) {
  word = (word >> 1 & 0x5555555555555555) | (word & 0x5555555555555555) << 1;
  word = (word >> 2 & 0x3333333333333333) | (word & 0x3333333333333333) << 2;
  return (word >> 4 & 0x0f0f0f0f0f0f0f0f) | (word & 0x0f0f0f0f0f0f0f0f) << 4;
}

}  // namespace

Result<Extent> FixedReader::map(uint64_t offset, uint64_t length, MapFor) const {
  return stored(*source_, offset, length);
}

Result<Extent> SparseReader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const uint64_t block = offset / image_.header.block_size;
  const uint64_t within = offset % image_.header.block_size;
  const MetadataSlice bat = TRY(tables_.slice_at(image_.entry_offset(block), 4, purpose));
  const auto entry = bat.be<uint32_t>(image_.entry_offset(block));
  if (entry == kFreeEntry) return free_run(bat, offset, length);

  const uint64_t start = TRY(block_start(image_, *source_, block, entry));
  length = std::min(length, image_.header.block_size - within);
  if (bitmaps_count_ && !TRY(is_full(block, purpose))) {
    const SectorRun run = TRY(sector_run(start, within, length, purpose));
    length = run.length;
    if (!run.present) {
      Extent extent = absent(length);
      extent.reserved = extent.kind == Extent::Kind::kZero;
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
  for (++block; run < length && bat.holds(image_.entry_offset(block), 4) &&
                bat.be<uint32_t>(image_.entry_offset(block)) == kFreeEntry;
       ++block) {
    run += block_size;
  }
  return absent(std::min(run, length));
}

Extent SparseReader::absent(uint64_t length) const {
  Extent extent;
  extent.kind = image_.parent ? Extent::Kind::kParent : Extent::Kind::kZero;
  extent.length = length;
  return extent;
}

Result<bool> SparseReader::is_full(uint64_t block, MapFor purpose) const {
  if (!image_.batmap || block / 8 >= image_.batmap->bytes) return false;
  const uint64_t at = image_.batmap->offset + block / 8;
  const MetadataSlice batmap = TRY(tables_.slice_at(at, 1, purpose));
  return (batmap.be<uint8_t>(at) & (0x80u >> (block % 8))) != 0;
}

// How long the sectors from `within` the block that starts at `start` have the same bit in its
// sector bitmap, as far as one slice of it tells.
Result<SparseReader::SectorRun> SparseReader::sector_run(uint64_t start, uint64_t within,
                                                         uint64_t length, MapFor purpose) const {
  constexpr uint64_t kWordBits = 64;
  uint64_t sector = within / kSectorBytes;
  const uint64_t end = div_round_up(within + length, kSectorBytes);
  const auto word_at = [&] { return start + sector / kWordBits * 8; };
  const MetadataSlice bitmap = TRY(tables_.slice_at(word_at(), 8, purpose));
  const auto bits = [&] {
    const auto word = bitmap.be<uint64_t>(word_at());
    return bits_are_reversed_ ? with_bits_reversed(word) : word;
  };
  const bool present = (bits() << (sector % kWordBits)) >> 63 != 0;
  while (sector < end && bitmap.holds(word_at(), 8)) {
    const uint64_t word = bits();
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
