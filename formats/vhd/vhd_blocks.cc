#include "formats/vhd/vhd_blocks.h"

#include <algorithm>

namespace underlay::vhd {
namespace {

constexpr uint64_t kPieceBytes = 1 << 20;  // of the BAT, read at a time

// Calls use(block, entry) for the entries of the first `blocks` blocks that are not free.
// REQUIRES: they lie within the file.
template <class Use>
Result<void> for_each_block(const DynamicHeader& header, uint64_t blocks, const Source& source,
                            const Use& use) {
  std::vector<std::byte> piece(static_cast<size_t>(std::min(kPieceBytes, blocks * 4)));
  for (uint64_t first = 0; first < blocks; first += kPieceBytes / 4) {
    const uint64_t count = std::min(blocks - first, kPieceBytes / 4);
    const MutableByteSpan bytes = MutableByteSpan(piece).first(static_cast<size_t>(count * 4));
    TRY(source.read_at(header.table_offset + first * 4, bytes));
    for (uint64_t i = 0; i < count; ++i) {
      const auto entry = load_be<uint32_t>(bytes, static_cast<size_t>(i * 4));
      if (entry != kFreeEntry) TRY(use(first + i, entry));
    }
  }
  return {};
}

// A block and its first sector, ordered by the latter.
constexpr uint64_t packed(uint64_t block, uint32_t entry) { return uint64_t{entry} << 32 | block; }
constexpr uint64_t block_of(uint64_t both) { return both & 0xffffffff; }
constexpr uint64_t sector_of(uint64_t both) { return both >> 32; }

Result<void> check_overlaps(const SparseImage& image, const Source& source,
                            std::vector<uint64_t> blocks) {
  std::sort(blocks.begin(), blocks.end());
  for (size_t i = 1; i < blocks.size(); ++i) {
    const uint64_t before = blocks[i - 1];
    const uint64_t end = sector_of(before) * kSectorBytes + image.needed_bytes(block_of(before));
    if (sector_of(blocks[i]) * kSectorBytes >= end) continue;
    return in_file(
        fail(ErrorKind::kMalformed,
             "BAT entry {} is sector {} and entry {} is sector {}: the blocks overlap, "
             "so the image is damaged",
             block_of(before), sector_of(before), block_of(blocks[i]), sector_of(blocks[i])),
        source.name(), image.entry_offset(block_of(blocks[i])));
  }
  return {};
}

}  // namespace

void SparseImage::add_metadata(const FileRange& range) {
  metadata.push_back(range);
  metadata_end = std::max(metadata_end, range.offset + range.length);
}

bool is_well_placed(const SparseImage& image, uint64_t block, uint32_t entry) {
  const FileRange range{.offset = entry * kSectorBytes, .length = image.needed_bytes(block)};
  if (!range_within(range.offset, range.length, image.data_end)) return false;
  return range.offset >= image.metadata_end ||
         std::none_of(image.metadata.begin(), image.metadata.end(),
                      [&](const FileRange& metadata) { return range.overlaps(metadata); });
}

std::optional<Defect> misplacement(const SparseImage& image, const Source& source, uint64_t block,
                                   uint32_t entry) {
  if (is_well_placed(image, block, entry)) return std::nullopt;
  const FileRange range{.offset = entry * kSectorBytes, .length = image.needed_bytes(block)};
  const auto defect = [&](std::string_view code, Failure why) {
    return Defect{
        .code = code,
        .error = in_file(std::move(why), source.name(), image.entry_offset(block)).value()};
  };
  const auto where_it_has = [&](std::string_view code, const std::string& what) {
    return defect(code, fail(ErrorKind::kMalformed,
                             "BAT entry {} is sector {}, where the image has its {}: the image is "
                             "damaged",
                             block, entry, what));
  };
  for (const FileRange& metadata : image.metadata) {
    if (!range.overlaps(metadata)) continue;
    return where_it_has("block-in-metadata",
                        fmt::format("metadata (bytes {} to {})", metadata.offset,
                                    metadata.offset + metadata.length - 1));
  }
  if (range.offset >= image.data_end && range.offset < source.size()) {
    return where_it_has("block-in-footer", "footer");
  }
  return defect(
      "block-beyond-end",
      fail(ErrorKind::kTruncated,
           "BAT entry {} is sector {}: the block ends at byte {}, but blocks end at byte {}: the "
           "file is truncated or damaged",
           block, entry, range.offset + range.length, image.data_end));
}

Result<uint64_t> block_start(const SparseImage& image, const Source& source, uint64_t block,
                             uint32_t entry) {
  if (auto defect = misplacement(image, source, block, entry)) {
    return Failure(std::move(defect->error));
  }
  return entry * kSectorBytes;
}

Result<void> check_blocks(const SparseImage& image, const Source& source) {
  if (image.blocks() * 4 > kMaxTableToCheck) return {};
  std::vector<uint64_t> blocks;
  const auto check = [&](uint64_t block, uint32_t entry) -> Result<void> {
    TRY(block_start(image, source, block, entry));
    blocks.push_back(packed(block, entry));
    return {};
  };
  TRY(for_each_block(image.header, image.blocks(), source, check));
  return check_overlaps(image, source, std::move(blocks));
}

Result<std::optional<uint64_t>> end_of_blocks(const SparseImage& image, const Source& source) {
  if (image.blocks() * 4 > kMaxTableToCheck) return std::nullopt;
  uint64_t end = div_round_up(image.metadata_end, kSectorBytes) * kSectorBytes;
  const auto extend = [&](uint64_t, uint32_t entry) -> Result<void> {
    end = std::max(end, entry * kSectorBytes + image.block_bytes());
    return {};
  };
  TRY(for_each_block(image.header, image.blocks(), source, extend));
  return end;
}

}  // namespace underlay::vhd
