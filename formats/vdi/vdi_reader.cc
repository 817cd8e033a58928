#include "formats/vdi/vdi_reader.h"

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

Result<uint64_t> VdiReader::place_of(uint64_t block, uint32_t entry, uint64_t bytes) const {
  auto place = place_of_block(header_, source_->size(), block, entry, bytes);
  if (!place) return in_file(std::move(place).error(), source_->name());
  return place;
}

Result<void> VdiReader::check_map() const {
  std::vector<bool> seen(header_.blocks_allocated);
  for (uint64_t block = 0; block < header_.blocks();) {
    const MetadataSlice slice =
        TRY(map_.slice_at(header_.entry_offset(block), kEntryBytes, MapFor::kRead));
    for (; block < header_.blocks() && slice.holds(header_.entry_offset(block), kEntryBytes);
         ++block) {
      const auto entry = slice.le<uint32_t>(header_.entry_offset(block));
      if (!is_stored(entry)) continue;
      TRY(place_of(block, entry, header_.used_bytes(block)));
      if (seen[entry]) {
        return in_file(fail(ErrorKind::kMalformed,
                            "block map entry {} is stored block {}, which is another block's "
                            "already: the image is damaged",
                            block, entry),
                       source_->name(), header_.entry_offset(block));
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
  const MetadataSlice slice = TRY(map_.slice_at(header_.entry_offset(block), kEntryBytes, purpose));
  const auto entry = slice.le<uint32_t>(header_.entry_offset(block));

  // The run of like blocks, as far as this slice of the map tells, and as the file has them.
  uint64_t run = header_.block_size - within;
  for (uint64_t next = block + 1; run < length; ++next) {
    const uint64_t at = header_.entry_offset(next);
    if (!slice.holds(at, kEntryBytes)) break;
    const auto follows = slice.le<uint32_t>(at);
    if (!goes_on(entry, follows, next - block)) break;
    if (is_stored(entry) && !place_of(next, follows, header_.used_bytes(next))) break;
    run += header_.block_size;
  }
  Extent extent;
  extent.length = std::min(run, length);
  if (is_stored(entry)) {
    extent.kind = Extent::Kind::kData;
    extent.source = source_.get();
    extent.source_offset = TRY(place_of(block, entry, header_.used_bytes(block))) + within;
  } else if (entry == kFreeEntry && is_differencing()) {
    extent.kind = Extent::Kind::kParent;
  } else {
    extent.kind = Extent::Kind::kZero;
  }
  return extent;
}

}  // namespace underlay::vdi
