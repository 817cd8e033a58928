#include "formats/vdi_reader.h"

#include <algorithm>

namespace underlay::vdi {

std::optional<ParentLink> VdiReader::parent() const {
  if (!is_differencing()) return std::nullopt;
  ParentLink link;
  link.format = "vdi";
  link.identity = to_string(header_.uuid_link);
  link.revision = to_string(header_.uuid_parent);
  return link;
}

// Where the first of the disk's bytes of a stored block lies, once it is sure that `bytes` of them
// (and of the blocks behind it) lie in the file.
Result<uint64_t> VdiReader::place_of(uint64_t block, uint32_t entry, uint64_t bytes) const {
  if (entry >= header_.blocks_allocated) {
    return in_file(fail(ErrorKind::kMalformed,
                        "block map entry {} is stored block {}, but blocks_allocated is {}: the "
                        "image is damaged",
                        block, entry, header_.blocks_allocated),
                   source_->name(), entry_offset(block));
  }
  const auto behind = checked_mul<uint64_t>(entry, header_.stored_block_bytes());
  const uint64_t first = uint64_t{header_.offset_data} + header_.block_extra;
  const uint64_t size = source_->size();
  if (!behind || !range_within(first, *behind, size) ||
      !range_within(first + *behind, bytes, size)) {
    return in_file(fail(ErrorKind::kTruncated,
                        "block map entry {} is stored block {}, which reaches beyond the end of "
                        "the file, {} bytes: it is truncated or damaged",
                        block, entry, size),
                   source_->name(), entry_offset(block));
  }
  return first + *behind;
}

Result<void> VdiReader::check_map() const {
  std::vector<bool> seen(header_.blocks_allocated);
  for (uint64_t block = 0; block < blocks();) {
    const MetadataSlice slice = TRY(map_.slice_at(entry_offset(block), kEntryBytes, MapFor::kRead));
    for (; block < blocks() && slice.holds(entry_offset(block), kEntryBytes); ++block) {
      const auto entry = slice.le<uint32_t>(entry_offset(block));
      if (!is_stored(entry)) continue;
      const uint64_t used =
          std::min<uint64_t>(header_.block_size, size() - block * header_.block_size);
      TRY(place_of(block, entry, used));
      if (seen[entry]) {
        return in_file(fail(ErrorKind::kMalformed,
                            "block map entry {} is stored block {}, which is another block's "
                            "already: the image is damaged",
                            block, entry),
                       source_->name(), entry_offset(block));
      }
      seen[entry] = true;
    }
  }
  return {};
}

// Does what `entry` began continue in `next`, `steps` entries later?
bool VdiReader::goes_on(uint32_t entry, uint32_t next, uint64_t steps) const {
  if (!is_stored(entry)) return next == entry;
  return header_.block_extra == 0 && is_stored(next) && next == entry + steps;
}

Result<Extent> VdiReader::map(uint64_t offset, uint64_t length, MapFor purpose) const {
  const uint64_t block = offset / header_.block_size;
  const uint64_t within = offset % header_.block_size;
  const MetadataSlice slice = TRY(map_.slice_at(entry_offset(block), kEntryBytes, purpose));
  const auto entry = slice.le<uint32_t>(entry_offset(block));

  // The run of like blocks, as far as this slice of the map tells, and as the file has them.
  uint64_t run = header_.block_size - within;
  for (uint64_t next = block + 1; run < length; ++next) {
    const uint64_t at = entry_offset(next);
    if (!slice.holds(at, kEntryBytes)) break;
    const auto follows = slice.le<uint32_t>(at);
    if (!goes_on(entry, follows, next - block)) break;
    const uint64_t used =
        std::min<uint64_t>(header_.block_size, size() - next * header_.block_size);
    if (is_stored(entry) && !place_of(next, follows, used)) break;
    run += header_.block_size;
  }
  Extent extent;
  extent.length = std::min(run, length);
  if (is_stored(entry)) {
    const uint64_t used = std::min(size() - offset + within, uint64_t{header_.block_size});
    extent.kind = Extent::Kind::kData;
    extent.source = source_.get();
    extent.source_offset = TRY(place_of(block, entry, used)) + within;
  } else if (entry == kFreeEntry && is_differencing()) {
    extent.kind = Extent::Kind::kParent;
  } else {
    extent.kind = Extent::Kind::kZero;
  }
  return extent;
}

}  // namespace underlay::vdi
