// The blocks of a sparse VHD: where each may lie ("Block Allocation Table and Data Blocks" of the
// specification), and the BAT looked at from end to end when the image is opened.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "formats/file_range.h"
#include "formats/reader.h"
#include "formats/vhd/vhd_layout.h"

namespace underlay::vhd {

// tapdisk's batmap. The first `bytes` of it are proved by its checksum; a set bit means that its
// block has all its sectors. Blocks without a bit here are told by their sector bitmaps.
struct Batmap {
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

// What the opening found out about a dynamic or differencing image.
struct SparseImage {
  Footer footer;
  DynamicHeader header;
  uint64_t size = 0;                 // guest-visible; the BAT has an entry for each of its blocks
  uint64_t data_end = 0;             // of the file: blocks lie before it; the BAT lies before it
  std::optional<ParentLink> parent;  // differencing
  std::optional<BatmapHeader> batmap_header;  // of tapdisk, as it stands there
  std::optional<Batmap> batmap;               // that can be relied on
  // Structures that no block may overlap, and where the last of them ends.
  std::vector<FileRange> metadata;
  uint64_t metadata_end = 0;

  // REQUIRES: range_within(range.offset, range.length, UINT64_MAX).
  void add_metadata(const FileRange& range);

  uint64_t blocks() const { return div_round_up(size, header.block_size); }
  uint64_t entry_offset(uint64_t block) const { return header.table_offset + block * 4; }
  // Bytes of the file that a block takes, from its sector bitmap on...
  uint64_t block_bytes() const { return header.bitmap_bytes() + header.block_size; }
  // ...and those that the disk needs: the last one's end may be missing. REQUIRES: block <
  // blocks().
  uint64_t needed_bytes(uint64_t block) const {
    const uint64_t block_size = header.block_size;
    return header.bitmap_bytes() + std::min(block_size, size - block * block_size);
  }
};

// Does what the disk needs of a block lie where blocks may lie? misplacement() without words.
// REQUIRES: entry != kFreeEntry, block < image.blocks().
bool is_well_placed(const SparseImage& image, uint64_t block, uint32_t entry);
// Why it does not; nullopt: it does. REQUIRES: the same.
std::optional<Defect> misplacement(const SparseImage& image, const Source& source, uint64_t block,
                                   uint32_t entry);

// The first byte of a block (its sector bitmap) in the file, once it is sure that what the disk
// needs of the block lies where blocks may lie. REQUIRES: entry != kFreeEntry.
Result<uint64_t> block_start(const SparseImage& image, const Source& source, uint64_t block,
                             uint32_t entry);

// Fails when an entry of the BAT that the disk needs is wrong, or two blocks overlap. Reads the
// whole BAT, in pieces; a BAT of more than kMaxTableToCheck bytes is checked where it is used
// instead. May block.
Result<void> check_blocks(const SparseImage& image, const Source& source);

// Where the last structure or block ends. nullopt when the BAT is larger than kMaxTableToCheck. May
// block.
Result<std::optional<uint64_t>> end_of_blocks(const SparseImage& image, const Source& source);

inline constexpr uint64_t kMaxTableToCheck = 4 << 20;  // bytes: of 2040 GiB in blocks of 2 MiB

}  // namespace underlay::vhd
