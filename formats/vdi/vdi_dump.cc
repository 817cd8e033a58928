#include "formats/vdi/vdi_dump.h"

#include <algorithm>

#include "formats/inspection/structure_dump.h"
#include "formats/inspection/table_reader.h"
#include "formats/vdi/vdi_head.h"

namespace underlay {
namespace vdi {
namespace {

constexpr std::string_view kMapName = "block map";

void dump_preheader(StructureDump& dump, const Header& header) {
  dump.text("text", 0, 64);
  dump.number<uint32_t>("signature", 64);
  dump.number<uint32_t>("version", 68, fmt::format("{}.{}", header.major(), header.minor()));
}

// A version before 1.0.
void dump_header_0(StructureDump& dump) {
  dump.number<uint32_t>("image_type", 72, type_name(dump.load<uint32_t>(72)));
  dump.number<uint32_t>("image_flags", 76);
  dump.text("description", 80, 256);
  dump.number<uint32_t>("cylinders", 336);
  dump.number<uint32_t>("heads", 340);
  dump.number<uint32_t>("sectors", 344);
  dump.number<uint32_t>("sector_size", 348);
  dump.number<uint64_t>("disk_size", 352);
  dump.number<uint32_t>("block_size", 360);
  dump.number<uint32_t>("blocks_in_image", 364);
  dump.number<uint32_t>("blocks_allocated", 368);
  dump.guid("uuid_image", 372);
  dump.guid("uuid_last_snap", 388);
  dump.guid("uuid_link", 404);
}

void dump_header_1(StructureDump& dump) {
  dump.number<uint32_t>("header_size", 72);
  dump.number<uint32_t>("image_type", 76, type_name(dump.load<uint32_t>(76)));
  dump.number<uint32_t>("image_flags", 80);
  dump.text("description", 84, 256);
  dump.number<uint32_t>("offset_bmap", 340);
  dump.number<uint32_t>("offset_data", 344);
  dump.number<uint32_t>("cylinders", 348);
  dump.number<uint32_t>("heads", 352);
  dump.number<uint32_t>("sectors", 356);
  dump.number<uint32_t>("sector_size", 360);
  dump.number<uint32_t>("unused", 364);
  dump.number<uint64_t>("disk_size", 368);
  dump.number<uint32_t>("block_size", 376);
  dump.number<uint32_t>("block_extra", 380);
  dump.number<uint32_t>("blocks_in_image", 384);
  dump.number<uint32_t>("blocks_allocated", 388);
  dump.guid("uuid_image", 392);
  dump.guid("uuid_last_snap", 408, "changes with the content");
  dump.guid("uuid_link", 424, "uuid_image of the parent");
  dump.guid("uuid_parent", 440, "uuid_last_snap of the parent");
}

std::string meaning_of(const Header& header, uint32_t entry) {
  if (entry == kFreeEntry) return "never written";
  if (entry == kDiscardedEntry) return "discarded";
  const auto behind = checked_mul<uint64_t>(entry, header.stored_block_bytes());
  const uint64_t first = uint64_t{header.offset_data} + header.block_extra;
  if (!behind || *behind > UINT64_MAX - first) return "lies beyond any file";
  return fmt::format("at byte {}", first + *behind);
}

Result<void> dump_map(const Source& source, const Header& header, DumpSink& sink) {
  const FileRange map{.offset = header.offset_bmap, .length = header.map_bytes()};
  // Of a map that is cut off, what there is.
  const uint64_t there = map.offset < source.size() ? source.size() - map.offset : 0;
  TRY(sink.begin(kMapName, map.offset, map.length));
  if (!sink.wants_fields(kMapName)) return {};
  const FileRange part{.offset = map.offset,
                       .length = std::min(map.length, there / kEntryBytes * kEntryBytes)};
  return for_each_piece(source, part, [&](uint64_t at, ByteSpan bytes) -> Result<void> {
    for (size_t i = 0; i < bytes.size(); i += kEntryBytes) {
      const auto entry = load_le<uint32_t>(bytes, i);
      TRY(sink.field(entry_name((at + i - map.offset) / kEntryBytes), at + i, kEntryBytes, entry,
                     meaning_of(header, entry)));
    }
    return {};
  });
}

}  // namespace
}  // namespace vdi

Result<void> dump_vdi(const FileToInspect& file, DumpSink& sink) {
  const vdi::HeaderBytes bytes = TRY(vdi::read_header_bytes(*file.source));
  const vdi::Header header = vdi::load_header(bytes);
  StructureDump dump(sink, "header", 0, bytes, ByteOrder::kLittle);
  vdi::dump_preheader(dump, header);
  if (header.major() == 0) {
    vdi::dump_header_0(dump);
    return dump.done();  // the places of the rest are not stated
  }
  vdi::dump_header_1(dump);
  TRY(dump.done());
  return vdi::dump_map(*file.source, header, sink);
}

}  // namespace underlay
