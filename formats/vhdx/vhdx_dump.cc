#include "formats/vhdx/vhdx_dump.h"

#include <algorithm>
#include <bit>

#include "formats/inspection/structure_dump.h"
#include "formats/inspection/table_reader.h"
#include "formats/vhdx/vhdx_blocks.h"
#include "formats/vhdx/vhdx_dump_log.h"
#include "formats/vhdx/vhdx_parent.h"
#include "formats/vhdx/vhdx_structures.h"

namespace underlay {
namespace vhdx {
namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kIdentifierBytes = 8 + 512;
constexpr uint64_t kEntryBytes = 8;  // of the BAT

std::string right_or(const std::string& defect) { return defect.empty() ? "right" : defect; }

void dump_header(StructureDump& dump, ByteSpan bytes) {
  dump.text("Signature", 0, 4);
  dump.number<uint32_t>("Checksum", 4, right_or(header_seal_defect(bytes)));
  dump.number<uint64_t>("SequenceNumber", 8);
  dump.guid("FileWriteGuid", 16);
  dump.guid("DataWriteGuid", 32);
  dump.guid("LogGuid", 48, is_null(guid_at(bytes, 48)) ? "the log is empty" : "");
  dump.number<uint16_t>("LogVersion", 64);
  dump.number<uint16_t>("Version", 66);
  dump.number<uint32_t>("LogLength", 68);
  dump.number<uint64_t>("LogOffset", 72);
}

void dump_region_table(StructureDump& dump, ByteSpan bytes) {
  dump.text("Signature", 0, 4);
  dump.number<uint32_t>("Checksum", 4, right_or(region_table_seal_defect(bytes)));
  dump.number<uint32_t>("EntryCount", 8);
  const uint32_t count = std::min(load_le<uint32_t>(bytes, 8), kMaxTableEntries);
  for (uint32_t i = 0; i < count; ++i) {
    const size_t at = 16 + i * 32;
    const std::string prefix = fmt::format("Entry[{}].", i);
    dump.guid(prefix + "Guid", at, region_name(guid_at(bytes, at)));
    dump.number<uint64_t>(prefix + "FileOffset", at + 16);
    dump.number<uint32_t>(prefix + "Length", at + 24);
    dump.number<uint32_t>(prefix + "Required", at + 28);
  }
}

std::string flags_meaning(uint32_t flags) {
  std::string words;
  for (const auto& [bit, word] :
       {std::pair(1u, "user"), std::pair(2u, "virtual disk"), std::pair(4u, "required")}) {
    if ((flags & bit) != 0) words += (words.empty() ? "" : ", ") + std::string(word);
  }
  return words;
}

void dump_metadata_table(StructureDump& dump, ByteSpan bytes) {
  dump.text("Signature", 0, 8);
  dump.number<uint16_t>("EntryCount", 10);
  const uint32_t count = std::min<uint32_t>(load_le<uint16_t>(bytes, 10), kMaxTableEntries);
  for (uint32_t i = 0; i < count; ++i) {
    const size_t at = 32 + i * 32;
    const std::string prefix = fmt::format("Entry[{}].", i);
    dump.guid(prefix + "ItemId", at, item_name(guid_at(bytes, at)));
    dump.number<uint32_t>(prefix + "Offset", at + 16);
    dump.number<uint32_t>(prefix + "Length", at + 20);
    dump.number<uint32_t>(prefix + "Flags", at + 24,
                          flags_meaning(load_le<uint32_t>(bytes, at + 24)));
  }
}

void dump_parent_locator(StructureDump& dump, ByteSpan bytes) {
  dump.guid("LocatorType", 0);
  dump.number<uint16_t>("KeyValueCount", 18);
  const auto count = std::min(load_le<uint16_t>(bytes, 18), kMaxKeyValues);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = kLocatorHeaderBytes + i * 12;
    if (!range_within(at, 12, bytes.size())) return;
    const std::string prefix = fmt::format("Entry[{}].", i);
    dump.number<uint32_t>(prefix + "KeyOffset", at);
    dump.number<uint32_t>(prefix + "ValueOffset", at + 4);
    dump.number<uint16_t>(prefix + "KeyLength", at + 8);
    dump.number<uint16_t>(prefix + "ValueLength", at + 10);
    for (const auto& [name, offset, length] :
         {std::tuple("Key", load_le<uint32_t>(bytes, at), load_le<uint16_t>(bytes, at + 8)),
          std::tuple("Value", load_le<uint32_t>(bytes, at + 4),
                     load_le<uint16_t>(bytes, at + 10))}) {
      if (length == 0 || !range_within(offset, length, bytes.size())) continue;
      dump.value(prefix + name, offset, length,
                 utf16_field(bytes.subspan(offset, length), ByteOrder::kLittle));
    }
  }
}

std::string_view state_name(uint8_t state) {
  constexpr std::array kNames = {"not present",   "undefined",        "zero",
                                 "unmapped",      "reserved",         "unmapped, of version 0.95",
                                 "fully present", "partially present"};
  return kNames[state];
}

class Dump {
 public:
  Dump(const Source& source, const Structures& found, DumpSink& sink)
      : source_(source), found_(found), sink_(sink) {}

  Result<void> run() {
    TRY(dump_at("file type identifier", 0, kIdentifierBytes, [](auto& dump, ByteSpan bytes) {
      dump.text("Signature", 0, 8);
      dump.value("Creator", 8, 512, utf16_field(bytes.subspan(8), ByteOrder::kLittle));
    }));
    for (size_t i = 0; i < 2; ++i) {
      TRY(dump_at(fmt::format("header {}", i + 1), kHeadersAt[i], kHeaderBytes, dump_header));
    }
    for (size_t i = 0; i < 2; ++i) {
      TRY(dump_at(fmt::format("region table {}", i + 1), kRegionTablesAt[i], kRegionTableBytes,
                  dump_region_table));
    }
    TRY(dump_log(source_, found_.header, sink_));
    TRY(dump_metadata());
    TRY(dump_bat());
    if (found_.geometry.has_parent && found_.has_bat) return dump_sector_bitmaps();
    return {};
  }

 private:
  // A structure that lies in the file, or nothing.
  template <class Fields>
  Result<void> dump_at(std::string_view name, uint64_t at, uint64_t length, const Fields& fields) {
    if (length == 0 || !range_within(at, length, source_.size())) return {};
    const Bytes bytes = TRY(read_bytes(source_, {.offset = at, .length = length}));
    StructureDump dump(sink_, name, at, bytes, ByteOrder::kLittle);
    fields(dump, bytes);
    return dump.done();
  }

  Result<void> dump_metadata() {
    const FileRange& region = found_.regions.metadata;
    if (region.length == 0) return {};
    TRY(dump_at("metadata table", region.offset, kMetadataTableBytes, dump_metadata_table));
    const MetadataItems& items = found_.items;
    TRY(dump_item("File Parameters", items.file_parameters, 8, [](auto& dump, ByteSpan bytes) {
      const Geometry geometry = geometry_of(bytes);
      dump.template number<uint32_t>("BlockSize", 0);
      dump.template number<uint32_t>("Flags", 4,
                                     geometry.has_parent               ? "HasParent"
                                     : geometry.leave_blocks_allocated ? "LeaveBlockAllocated"
                                                                       : "");
    }));
    TRY(dump_item("Virtual Disk Size", items.virtual_disk_size, 8, [](auto& dump, ByteSpan) {
      dump.template number<uint64_t>("VirtualDiskSize", 0);
    }));
    TRY(dump_item("Virtual Disk ID", items.virtual_disk_id, sizeof(Guid),
                  [](auto& dump, ByteSpan) { dump.guid("VirtualDiskId", 0); }));
    TRY(dump_item("Logical Sector Size", items.logical_sector_size, 4, [](auto& dump, ByteSpan) {
      dump.template number<uint32_t>("LogicalSectorSize", 0);
    }));
    TRY(dump_item("Physical Sector Size", items.physical_sector_size, 4, [](auto& dump, ByteSpan) {
      dump.template number<uint32_t>("PhysicalSectorSize", 0);
    }));
    return dump_item("Parent Locator", items.parent_locator, kLocatorHeaderBytes,
                     dump_parent_locator);
  }

  template <class Fields>
  Result<void> dump_item(std::string_view name, const FileRange& item, uint64_t least,
                         const Fields& fields) {
    if (item.length < least) return {};
    return dump_at(name, item.offset, item.length, fields);
  }

  static Geometry geometry_of(ByteSpan file_parameters) {
    Defects defects;
    return parse_geometry(file_parameters, Bytes(8), Bytes(4), defects);
  }

  // As far as the disk needs it; all that is in the file when that is not known.
  Result<void> dump_bat() {
    constexpr std::string_view kName = "BAT";
    const FileRange& region = found_.regions.bat;
    if (region.length == 0) return {};
    TRY(sink_.begin(kName, region.offset, region.length));
    if (!sink_.wants_fields(kName) || region.offset >= source_.size()) return {};
    const uint64_t there = source_.size() - region.offset;
    const uint64_t length =
        found_.has_bat ? found_.geometry.entries() * kEntryBytes : std::min(region.length, there);
    const FileRange part{.offset = region.offset, .length = length / kEntryBytes * kEntryBytes};
    return for_each_piece(source_, part, [&](uint64_t at, ByteSpan bytes) -> Result<void> {
      for (size_t i = 0; i < bytes.size(); i += kEntryBytes) {
        const uint64_t number = (at + i - region.offset) / kEntryBytes;
        const auto entry = load_le<uint64_t>(bytes, i);
        TRY(sink_.field(entry_name(number), at + i, kEntryBytes, entry, meaning_of(number, entry)));
      }
      return {};
    });
  }

  std::string meaning_of(uint64_t number, uint64_t value) const {
    const BatEntry entry(value);
    std::string words(state_name(entry.state));
    if (entry.file_offset != 0) words += fmt::format(", at byte {}", entry.file_offset);
    if (!found_.has_bat) return words;
    const uint64_t in_chunk = found_.geometry.chunk_ratio() + 1;
    return number % in_chunk == in_chunk - 1 ? "sector bitmap block: " + words : words;
  }

  // The parts of sector bitmap blocks that belong to blocks which are partially present.
  Result<void> dump_sector_bitmaps() {
    constexpr std::string_view kName = "sector bitmaps";
    TRY(sink_.begin(kName, 0, source_.size()));
    if (!sink_.wants_fields(kName)) return {};
    const FileRange bat{.offset = found_.regions.bat.offset,
                        .length = found_.geometry.entries() * kEntryBytes};
    const uint64_t ratio = found_.geometry.chunk_ratio();
    return for_each_piece(source_, bat, [&](uint64_t at, ByteSpan bytes) -> Result<void> {
      for (size_t i = 0; i < bytes.size(); i += kEntryBytes) {
        const uint64_t number = (at + i - bat.offset) / kEntryBytes;
        if (number % (ratio + 1) == ratio) continue;  // of a sector bitmap block itself
        const BatEntry entry(load_le<uint64_t>(bytes, i));
        if (entry.state != BatEntry::kPartiallyPresent) continue;
        TRY(dump_sector_bitmap(number - number / (ratio + 1)));
      }
      return {};
    });
  }

  Result<void> dump_sector_bitmap(uint64_t block) {
    const Geometry& geometry = found_.geometry;
    std::array<std::byte, kEntryBytes> bytes;
    TRY(source_.read_at(found_.regions.bat.offset + geometry.bitmap_entry_of(block) * kEntryBytes,
                        bytes));
    const BatEntry bitmap(load_le<uint64_t>(bytes, 0));
    const uint64_t sectors = geometry.block_size / geometry.logical_sector_size;
    const uint64_t length = sectors / 8;
    const uint64_t within = block % geometry.chunk_ratio() * length;
    if (bitmap.state != BatEntry::kFullyPresent ||
        !range_within(bitmap.file_offset, kSectorBitmapBytes, source_.size())) {
      return {};
    }
    const FileRange range{.offset = bitmap.file_offset + within, .length = length};
    uint64_t set = 0;
    for (const std::byte byte : TRY(read_bytes(source_, range))) {
      set += static_cast<uint64_t>(std::popcount(std::to_integer<unsigned>(byte)));
    }
    return sink_.field(entry_name(block), range.offset, range.length, set,
                       fmt::format("of {} sectors", sectors));
  }

  const Source& source_;
  const Structures& found_;
  DumpSink& sink_;
};

}  // namespace
}  // namespace vhdx

Result<void> dump_vhdx(const FileToInspect& file, DumpSink& sink) {
  const auto found = TRY(vhdx::read_structures(file.source, vhdx::Log::kIgnore));
  return vhdx::Dump(*file.source, found, sink).run();
}

}  // namespace underlay
