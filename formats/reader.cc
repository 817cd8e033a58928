#include "formats/reader.h"

namespace underlay {

Result<void> Reader::load_cluster(const Extent& extent, MutableByteSpan) const {
  return in_file(fail(ErrorKind::kUnsupported, "this format has no compressed clusters"),
                 extent.source->name(), extent.source_offset);
}

}  // namespace underlay
