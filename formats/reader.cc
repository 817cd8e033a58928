#include "formats/reader.h"

namespace underlay {

Result<void> Reader::load_cluster(const Extent& extent, MutableByteSpan) const {
  return in_file(fail(ErrorKind::kUnsupported, "this format has no compressed clusters"),
                 extent.source->name(), extent.source_offset);
}

Result<std::unique_ptr<const DirtyBitmap>> Reader::dirty_bitmap(std::string_view) const {
  return nullptr;
}

}  // namespace underlay
