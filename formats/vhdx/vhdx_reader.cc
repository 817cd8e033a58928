#include "formats/vhdx/vhdx_reader.h"

#include <algorithm>
#include <bit>

namespace underlay::vhdx {
namespace {

std::shared_ptr<const Source> source_of_tables(const OpenedImage& image) {
  if (image.replayed) return image.replayed;
  return image.file;
}

}  // namespace

VhdxReader::VhdxReader(OpenedImage image, Caches& caches)
    : image_(std::move(image)),
      rules_(image_.geometry, image_.bat, image_.structures, image_source().size(),
             image_.file->name()),
      tables_(caches, source_of_tables(image_)) {}

const Source& VhdxReader::image_source() const {
  if (image_.replayed) return *image_.replayed;
  return *image_.file;
}

Result<VhdxReader::Content> VhdxReader::content_of(uint64_t block, const BatEntry& entry) const {
  if (auto defect = rules_.payload_defect(block, entry)) return Failure(std::move(defect->error));
  return rules_.content_of(entry);
}

// The entry of the sector bitmap block that tells of `block`'s sectors.
Result<BatEntry> VhdxReader::bitmap_entry(uint64_t block, MapFor purpose) const {
  const uint64_t number = image_.geometry.bitmap_entry_of(block);
  const MetadataSlice bat = TRY(tables_.slice_at(entry_offset(number), 8, purpose));
  const BatEntry entry(bat.le<uint64_t>(entry_offset(number)));
  if (auto defect = rules_.bitmap_defect(number, entry, block)) {
    return Failure(std::move(defect->error));
  }
  return entry;
}

Result<void> VhdxReader::check_block(uint64_t block, const BatEntry& entry, Places& places) const {
  const Content content = TRY(content_of(block, entry));
  if (content != Content::kStored && content != Content::kPartlyStored) return {};
  places.ranges.push_back({.offset = entry.file_offset, .length = rules_.used_bytes(block)});
  const uint64_t number = image_.geometry.bitmap_entry_of(block);
  if (content == Content::kStored || places.bitmap == number) return {};
  const BatEntry bitmap = TRY(bitmap_entry(block, MapFor::kRead));
  places.ranges.push_back({.offset = bitmap.file_offset, .length = kSectorBitmapBytes});
  places.bitmap = number;
  return {};
}

Result<void> VhdxReader::check_table() const {
  Places places;
  const uint64_t blocks = image_.geometry.blocks();
  for (uint64_t block = 0; block < blocks;) {
    const MetadataSlice bat = TRY(tables_.slice_at(payload_entry_offset(block), 8, MapFor::kRead));
    for (; block < blocks && bat.holds(payload_entry_offset(block), 8); ++block) {
      TRY(check_block(block, BatEntry(bat.le<uint64_t>(payload_entry_offset(block))), places));
    }
  }
  auto& ranges = places.ranges;
  std::sort(ranges.begin(), ranges.end(),
            [](const FileRange& a, const FileRange& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (!ranges[i - 1].overlaps(ranges[i])) continue;
    return in_file(fail(ErrorKind::kMalformed,
                        "two BAT entries claim the same bytes, for a block at byte {} ({} bytes) "
                        "and for one at byte {}: the image is damaged",
                        ranges[i - 1].offset, ranges[i - 1].length, ranges[i].offset),
                   image_.file->name(), image_.bat.offset);
  }
  return {};
}

Result<Extent> VhdxReader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const uint64_t block = offset / image_.geometry.block_size;
  const uint64_t within = offset % image_.geometry.block_size;
  const MetadataSlice bat = TRY(tables_.slice_at(payload_entry_offset(block), 8, purpose));
  const BatEntry entry(bat.le<uint64_t>(payload_entry_offset(block)));
  const Content content = TRY(content_of(block, entry));
  Extent extent;
  if (content == Content::kPartlyStored) {
    length = std::min(length, image_.geometry.block_size - within);
    const SectorRun run = TRY(sector_run(block, within, length, purpose));
    if (run.present) return stored(offset, entry.file_offset + within, run.length);
    extent.kind = Extent::Kind::kParent;
    extent.length = run.length;
    return extent;
  }
  const uint64_t run = run_of_blocks(bat, block, content, within + length) - within;
  extent.length = std::min(run, length);
  if (content == Content::kStored) {
    return stored(offset, entry.file_offset + within, extent.length);
  }
  extent.kind = content == Content::kParents ? Extent::Kind::kParent : Extent::Kind::kZero;
  return extent;
}

// Bytes from the start of `block` to the end of the last block of `content` behind it, as far as
// this slice of the BAT tells; those that are stored must also lie one behind the other. May stop
// once it has `enough`.
uint64_t VhdxReader::run_of_blocks(const MetadataSlice& bat, uint64_t block, Content content,
                                   uint64_t enough) const {
  const uint64_t block_size = image_.geometry.block_size;
  const BatEntry first(bat.le<uint64_t>(payload_entry_offset(block)));
  uint64_t run = block_size;
  for (++block; run < enough && bat.holds(payload_entry_offset(block), 8); ++block) {
    const BatEntry entry(bat.le<uint64_t>(payload_entry_offset(block)));
    if (content == Content::kStored && entry.file_offset != first.file_offset + run) break;
    const auto same = content_of(block, entry);
    if (!same || *same != content) break;
    run += block_size;
  }
  return run;
}

// How long the sectors from `within` the block have the same bit in the sector bitmap (2.4), as far
// as one slice of it tells. The first sector is the least significant bit of the first byte.
Result<VhdxReader::SectorRun> VhdxReader::sector_run(uint64_t block, uint64_t within,
                                                     uint64_t length, MapFor purpose) const {
  constexpr uint64_t kWordBits = 64;
  const Geometry& geometry = image_.geometry;
  const BatEntry bitmap_block = TRY(bitmap_entry(block, purpose));
  const uint64_t sector_bytes = geometry.logical_sector_size;
  const uint64_t sectors_before =
      block % geometry.chunk_ratio() * (geometry.block_size / sector_bytes);
  uint64_t sector = sectors_before + within / sector_bytes;
  const uint64_t end = sectors_before + div_round_up(within + length, sector_bytes);
  const auto word_at = [&] { return bitmap_block.file_offset + sector / kWordBits * 8; };
  const MetadataSlice bitmap = TRY(tables_.slice_at(word_at(), 8, purpose));
  const bool present = (bitmap.le<uint64_t>(word_at()) >> (sector % kWordBits) & 1) != 0;
  while (sector < end && bitmap.holds(word_at(), 8)) {
    const auto word = bitmap.le<uint64_t>(word_at());
    const uint64_t left = kWordBits - sector % kWordBits;
    const auto alike =
        static_cast<uint64_t>(std::countr_one((present ? word : ~word) >> (sector % kWordBits)));
    sector += std::min(alike, left);
    if (alike < left) break;
  }
  const uint64_t run_end = std::min((sector - sectors_before) * sector_bytes, within + length);
  return SectorRun{.present = present, .length = run_end - within};
}

// Stored bytes, as far as the log leaves them alone, or rewrites them in the same way.
Extent VhdxReader::stored(uint64_t offset, uint64_t file_offset, uint64_t length) const {
  Extent extent;
  extent.kind = Extent::Kind::kData;
  extent.length = length;
  extent.source = image_.file.get();
  extent.source_offset = file_offset;
  if (!image_.replayed) return extent;
  const Overlay::Piece piece = image_.replayed->piece_at(file_offset, length);
  extent.length = piece.length;
  if (piece.kind == Overlay::Piece::Kind::kUntouched) return extent;
  extent.source_offset = 0;
  if (piece.kind == Overlay::Piece::Kind::kZeros) {
    extent.kind = Extent::Kind::kZero;
    extent.source = nullptr;
    return extent;
  }
  // Blocks begin at multiples of a MiB here and in the file, so that a sector lies in one block.
  extent.kind = Extent::Kind::kCopied;
  extent.cluster_start = offset - file_offset % Overlay::kSectorBytes;
  extent.cluster_length = Overlay::kSectorBytes;
  return extent;
}

Result<void> VhdxReader::load_cluster(const Extent& extent, MutableByteSpan out) const {
  const uint64_t block = extent.cluster_start / image_.geometry.block_size;
  const uint64_t within = extent.cluster_start % image_.geometry.block_size;
  const MetadataSlice bat = TRY(tables_.slice_at(payload_entry_offset(block), 8, MapFor::kRead));
  const BatEntry entry(bat.le<uint64_t>(payload_entry_offset(block)));
  return image_.replayed->read_at(entry.file_offset + within, out);
}

}  // namespace underlay::vhdx
