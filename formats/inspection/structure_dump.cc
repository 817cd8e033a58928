#include "formats/inspection/structure_dump.h"

namespace underlay {

void StructureDump::text(std::string_view name, size_t at, size_t length,
                         std::string_view meaning) {
  const std::string_view text = as_text(bytes_.subspan(at, length));
  value(name, at, length, text.substr(0, text.find('\0')), meaning);
}

void StructureDump::guid(std::string_view name, size_t at, std::string_view meaning) {
  const GuidOrder order =
      order_ == ByteOrder::kBig ? GuidOrder::kBigEndian : GuidOrder::kLittleEndian;
  value(name, at, sizeof(Guid), to_text(guid_at(bytes_, at), order), meaning);
}

std::string entry_name(uint64_t number) { return fmt::format("[{}]", number); }

}  // namespace underlay
