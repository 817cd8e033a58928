#include "formats/vhdx/vhdx_blocks.h"

#include <algorithm>

namespace underlay::vhdx {
namespace {

// The structure that `range` has a byte of, or null. `structures` are ascending and apart.
const FileRange* find_overlapped(const std::vector<FileRange>& structures, const FileRange& range) {
  auto behind = std::upper_bound(
      structures.begin(), structures.end(), range.offset,
      [](uint64_t offset, const FileRange& structure) { return offset < structure.offset; });
  if (behind != structures.end() && behind->overlaps(range)) return &*behind;
  if (behind != structures.begin() && (--behind)->overlaps(range)) return &*behind;
  return nullptr;
}

}  // namespace

uint64_t BatRules::used_bytes(uint64_t block) const {
  const uint64_t block_size = geometry_.block_size;
  return std::min(block_size, geometry_.virtual_disk_size - block * block_size);
}

BatRules::Content BatRules::content_of(const BatEntry& entry) const {
  switch (entry.state) {
    case BatEntry::kNotPresent:
      return geometry_.has_parent ? Content::kParents : Content::kZeros;
    case BatEntry::kFullyPresent:
      return Content::kStored;
    case BatEntry::kPartiallyPresent:
      return Content::kPartlyStored;
    default:
      return Content::kZeros;
  }
}

bool BatRules::can_have_state(const BatEntry& entry) const {
  if (entry.state == BatEntry::kPartiallyPresent) return geometry_.has_parent;
  return entry.state != BatEntry::kReserved;
}

bool BatRules::is_payload_sound(uint64_t block, const BatEntry& entry) const {
  if (!can_have_state(entry)) return false;
  return !entry.is_stored() || is_well_placed(entry, used_bytes(block));
}

bool BatRules::is_well_placed(const BatEntry& entry, uint64_t length) const {
  return entry.reserved == 0 && entry.file_offset >= kHeaderSectionBytes &&
         range_within(entry.file_offset, length, file_size_) &&
         find_overlapped(structures_, {.offset = entry.file_offset, .length = length}) == nullptr;
}

std::optional<Defect> BatRules::payload_defect(uint64_t block, const BatEntry& entry) const {
  const uint64_t number = geometry_.entry_of(block);
  if (!can_have_state(entry)) {
    return Defect{
        .code = "block-state-wrong",
        .error = in_file(fail(ErrorKind::kMalformed,
                              "BAT entry {} has the state {}, which a payload block of "
                              "{} image cannot have: the image is damaged",
                              number, static_cast<unsigned>(entry.state),
                              geometry_.has_parent ? "a differencing" : "a fixed or dynamic"),
                         file_, entry_offset(number))
                     .value()};
  }
  if (!entry.is_stored()) return std::nullopt;
  return misplacement("payload", number, entry, used_bytes(block));
}

std::optional<Defect> BatRules::bitmap_defect(uint64_t number, const BatEntry& entry,
                                              uint64_t block) const {
  if (entry.state == BatEntry::kFullyPresent) {
    return misplacement("sector bitmap", number, entry, kSectorBitmapBytes);
  }
  return Defect{.code = "bitmap-missing",
                .error = in_file(fail(ErrorKind::kMalformed,
                                      "BAT entry {} has the state {}, but payload block {} needs "
                                      "its sector bitmap, which would be state 6: the image is "
                                      "damaged",
                                      number, static_cast<unsigned>(entry.state), block),
                                 file_, entry_offset(number))
                             .value()};
}

std::optional<Defect> BatRules::misplacement(std::string_view what, uint64_t number,
                                             const BatEntry& entry, uint64_t length) const {
  if (is_well_placed(entry, length)) return std::nullopt;
  const FileRange range{.offset = entry.file_offset, .length = length};
  const auto wrong = [&](std::string_view code, ErrorKind kind, std::string_view why) {
    return Defect{
        .code = code,
        .error = in_file(fail(kind, "BAT entry {} says that its {} block lies at byte {}, {}",
                              number, what, range.offset, why),
                         file_, entry_offset(number))
                     .value()};
  };
  if (entry.reserved != 0) {
    return wrong("block-reserved-bits", ErrorKind::kMalformed,
                 fmt::format("and has reserved bits ({:#x}): the image is damaged, or a newer "
                             "program wrote it",
                             entry.reserved));
  }
  if (range.offset < kHeaderSectionBytes) {
    return wrong("block-in-headers", ErrorKind::kMalformed,
                 "within the first MiB, which is the headers': the image is damaged");
  }
  if (const FileRange* structure = find_overlapped(structures_, range)) {
    return wrong("block-in-structure", ErrorKind::kMalformed,
                 fmt::format("where the image has its log or a region (bytes {} to {}): the image "
                             "is damaged",
                             structure->offset, structure->offset + structure->length - 1));
  }
  return wrong("block-beyond-end", ErrorKind::kTruncated,
               fmt::format("{} bytes, but the file ends at byte {}: it is truncated or damaged",
                           range.length, file_size_));
}

}  // namespace underlay::vhdx
