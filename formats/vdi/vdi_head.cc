#include "formats/vdi/vdi_head.h"

#include <algorithm>

namespace underlay::vdi {

Result<HeaderBytes> read_header_bytes(const Source& source) {
  HeaderBytes bytes{};
  const auto size = static_cast<size_t>(std::min<uint64_t>(source.size(), bytes.size()));
  TRY(source.read_at(0, MutableByteSpan(bytes).first(size)));
  if (find_signs(ByteSpan(bytes).first(size)) != Signs::kSignature) {
    return fail(ErrorKind::kMalformed, "is no VDI: it has no signature at byte 64");
  }
  if (size == bytes.size()) return bytes;
  return fail(ErrorKind::kTruncated,
              "has {} bytes, but the header of a VDI has {}: it is truncated", size, bytes.size());
}

std::string_view type_name(uint32_t image_type) {
  switch (image_type) {
    case kTypeDynamic:
      return "dynamic";
    case kTypeStatic:
      return "static";
    case kTypeUndo:
      return "undo";
    case kTypeDifferencing:
      return "differencing";
    default:
      return "unknown";
  }
}

}  // namespace underlay::vdi
