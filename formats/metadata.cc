#include "formats/metadata.h"

#include <algorithm>

namespace underlay {

Result<MetadataSlice> Metadata::slice_at(uint64_t offset, size_t width, MapFor purpose) const {
  assert(width > 0 && kSliceBytes % width == 0 && offset % width == 0);
  if (!range_within(offset, width, source_->size())) {
    return in_file(fail(ErrorKind::kTruncated,
                        "a table lies beyond the end of the file, which has {} bytes: it is "
                        "truncated or damaged",
                        source_->size()),
                   source_->name(), offset);
  }
  const uint64_t start = offset - offset % kSliceBytes;
  const BlockCache::Key key{.owner = owner_, .offset = start};
  if (auto block = caches_.tables.find(key)) return MetadataSlice(std::move(block), start);
  if (purpose == MapFor::kReadNow) return would_block();
  const auto size = static_cast<size_t>(std::min(kSliceBytes, source_->size() - start));
  auto block = TRY(caches_.tables.get(
      key, size, [&](MutableByteSpan out) { return source_->read_at(start, out); }));
  return MetadataSlice(std::move(block), start);
}

}  // namespace underlay
