#include "formats/vhd/vhd_dump.h"

#include <algorithm>
#include <bit>

#include "formats/inspection/structure_dump.h"
#include "formats/inspection/table_reader.h"
#include "formats/vhd/vhd_batmap.h"
#include "formats/vhd/vhd_structures.h"
#include "formats/vhd/vhd_words.h"

namespace underlay {
namespace vhd {
namespace {

constexpr uint64_t kEntryBytes = 4;  // of the BAT

uint64_t set_bits(ByteSpan bytes) {
  uint64_t count = 0;
  for (const std::byte byte : bytes) {
    count += static_cast<uint64_t>(std::popcount(std::to_integer<unsigned>(byte)));
  }
  return count;
}

class Dump {
 public:
  Dump(const Source& source, const Structures& found, DumpSink& sink)
      : source_(source), found_(found), image_(found.sparse), sink_(sink) {}

  Result<void> run() {
    const bool sparse = found_.found.footer.is_sparse();
    if (sparse) TRY(dump_footer_at("footer copy", 0, kFooterBytes));
    if (sparse) TRY(dump_header());
    if (found_.has_header) {
      TRY(dump_bat());
      TRY(dump_batmap());
      for (const ReadLocator& locator : found_.locators) TRY(dump_locator(locator));
      if (found_.has_places) TRY(dump_sector_bitmaps());
    }
    return dump_trailing_footers();
  }

 private:
  Result<std::vector<std::byte>> read(uint64_t at, uint64_t length) const {
    std::vector<std::byte> bytes(static_cast<size_t>(length));
    TRY(source_.read_at(at, bytes));
    return bytes;
  }

  // When there are signs of one.
  Result<void> dump_footer_at(std::string_view name, uint64_t at, uint64_t length) {
    if (!range_within(at, length, source_.size())) return {};
    const auto bytes = TRY(read(at, length));
    const ExaminedFooter examined = examine_footer(bytes);
    if (examined.state == ExaminedFooter::State::kNone) return {};
    StructureDump dump(sink_, name, at, bytes, ByteOrder::kBig);
    const Footer& footer = examined.footer;
    const FooterDetails details = footer_details(bytes);
    dump.text("cookie", 0, 8);
    dump.number<uint32_t>("features", 8);
    dump.number<uint32_t>("file_format_version", 12, version_text(details.file_format_version));
    dump.number<uint64_t>("data_offset", 16);
    dump.number<uint32_t>("time_stamp", 24, date_of(details.time_stamp));
    dump.text("creator_application", 28, 4, creator_of(footer));
    dump.number<uint32_t>("creator_version", 32, version_text(footer.creator_version));
    dump.text("creator_host_os", 36, 4, host_os_of({details.creator_host_os.data(), 4}));
    dump.number<uint64_t>("original_size", 40);
    dump.number<uint64_t>("current_size", 48);
    dump.number<uint16_t>("cylinders", 56,
                          fmt::format("the geometry's size: {} bytes", footer.chs_size()));
    dump.number<uint8_t>("heads", 58);
    dump.number<uint8_t>("sectors_per_track", 59);
    dump.number<uint32_t>("disk_type", 60, type_name(footer.disk_type));
    dump.number<uint32_t>("checksum", 64, examined.defect.empty() ? "right" : examined.defect);
    dump.guid("unique_id", 68);
    dump.number<uint8_t>("saved_state", 84);
    dump.number<uint8_t>("hidden", 85);
    return dump.done();
  }

  // The one that counts, and one behind it or a damaged one at the end of the file.
  Result<void> dump_trailing_footers() {
    const uint64_t size = source_.size();
    const uint64_t at = found_.found.at;
    if (at != 0) TRY(dump_footer_at("footer", at, std::min<uint64_t>(size - at, kFooterBytes)));
    for (const uint64_t length : {kFooterBytes, kShortFooterBytes}) {
      if (size <= length || size - length <= at) continue;
      TRY(dump_footer_at("footer at the end of the file", size - length, length));
    }
    return {};
  }

  Result<void> dump_header() {
    const uint64_t at = found_.found.footer.data_offset;
    if (!range_within(at, kDynamicHeaderBytes, source_.size())) return {};
    const auto bytes = TRY(read(at, kDynamicHeaderBytes));
    Defects defects;
    const auto header = parse_dynamic_header(bytes, defects);
    const bool right = std::none_of(defects.begin(), defects.end(), [](const Defect& defect) {
      return defect.code == kHeaderChecksumWrong;
    });
    StructureDump dump(sink_, "dynamic disk header", at, bytes, ByteOrder::kBig);
    dump.text("cookie", 0, 8);
    dump.number<uint64_t>("data_offset", 8);
    dump.number<uint64_t>("table_offset", 16);
    dump.number<uint32_t>("header_version", 24, version_text(dump.load<uint32_t>(24)));
    dump.number<uint32_t>("max_table_entries", 28);
    dump.number<uint32_t>("block_size", 32);
    dump.number<uint32_t>("checksum", 36, header && right ? "right" : "wrong");
    dump.guid("parent_unique_id", 40);
    dump.number<uint32_t>("parent_time_stamp", 56, date_of(dump.load<uint32_t>(56)));
    if (header) {
      dump.value("parent_unicode_name", 64, kParentNameBytes,
                 parent_unicode_name(*header, unmarked_order(found_.found.footer)));
    }
    for (size_t i = 0; i < kParentLocators; ++i) dump_locator_entry(dump, i);
    return dump.done();
  }

  static void dump_locator_entry(StructureDump& dump, size_t number) {
    const size_t at = 576 + number * 24;
    if (dump.load<uint32_t>(at) == 0) return;  // not used
    const std::string prefix = fmt::format("parent_locator[{}].", number);
    dump.text(prefix + "platform_code", at, 4);
    dump.number<uint32_t>(prefix + "data_space", at + 4);
    dump.number<uint32_t>(prefix + "data_length", at + 8);
    dump.number<uint64_t>(prefix + "data_offset", at + 16);
  }

  // The part of the BAT that lies in the file.
  FileRange bat() const {
    const uint64_t at = image_.header.table_offset;
    const uint64_t there = at < source_.size() ? source_.size() - at : 0;
    return {.offset = at,
            .length = std::min(image_.header.table_bytes(), there / kEntryBytes * kEntryBytes)};
  }

  Result<void> dump_bat() {
    constexpr std::string_view kName = "BAT";
    TRY(sink_.begin(kName, image_.header.table_offset, image_.header.table_bytes()));
    if (!sink_.wants_fields(kName)) return {};
    return for_each_entry([&](uint64_t block, uint64_t at, uint32_t entry) {
      return sink_.field(
          entry_name(block), at, kEntryBytes, entry,
          entry == kFreeEntry ? "free" : fmt::format("at byte {}", entry * kSectorBytes));
    });
  }

  template <class Use>
  Result<void> for_each_entry(const Use& use) {
    return for_each_piece(source_, bat(), [&](uint64_t at, ByteSpan bytes) -> Result<void> {
      for (size_t i = 0; i < bytes.size(); i += kEntryBytes) {
        const uint64_t block = (at + i - image_.header.table_offset) / kEntryBytes;
        TRY(use(block, at + i, load_be<uint32_t>(bytes, i)));
      }
      return {};
    });
  }

  Result<void> dump_batmap() {
    if (!image_.batmap_header) return {};
    const uint64_t at = batmap_header_at(image_.header);
    const auto bytes = TRY(read(at, kBatmapHeaderBytes));
    StructureDump dump(sink_, "batmap header", at, bytes, ByteOrder::kBig);
    dump.text("cookie", 0, 8);
    dump.number<uint64_t>("batmap_offset", 8);
    dump.number<uint32_t>("batmap_size", 16, "sectors");
    dump.number<uint32_t>("batmap_version", 20, version_text(dump.load<uint32_t>(20)));
    dump.number<uint32_t>("checksum", 24,
                          image_.batmap ? "right" : "wrong, or the batmap cannot be used");
    dump.number<uint8_t>("marker", 28);
    dump.number<uint8_t>("keyhash", 29, image_.batmap_header->is_encrypted ? "encrypted" : "");
    TRY(dump.done());
    const FileRange map{.offset = image_.batmap_header->batmap_offset,
                        .length = image_.batmap_header->batmap_bytes};
    if (!range_within(map.offset, map.length, source_.size())) return {};
    return dump_bits("batmap", map);
  }

  Result<void> dump_bits(std::string_view name, const FileRange& map) {
    TRY(sink_.begin(name, map.offset, map.length));
    if (!sink_.wants_fields(name)) return {};
    uint64_t count = 0;
    TRY(for_each_piece(source_, map, [&](uint64_t, ByteSpan bytes) -> Result<void> {
      count += set_bits(bytes);
      return {};
    }));
    return sink_.field("bits", map.offset, map.length, count,
                       fmt::format("{} blocks have all their sectors", count));
  }

  Result<void> dump_locator(const ReadLocator& read) {
    const ParentLocator& locator = read.locator;
    if (!range_within(locator.data_offset, locator.data_length, source_.size())) return {};
    TRY(sink_.begin(fmt::format("parent locator {}", code_text(locator.code())),
                    locator.data_offset, locator.data_length));
    return sink_.field("data", locator.data_offset, locator.data_length, read.text, read.defect);
  }

  // They lie before their blocks, all over the file.
  Result<void> dump_sector_bitmaps() {
    constexpr std::string_view kName = "sector bitmaps";
    TRY(sink_.begin(kName, 0, image_.data_end));
    if (!sink_.wants_fields(kName)) return {};
    return for_each_entry([&](uint64_t block, uint64_t, uint32_t entry) -> Result<void> {
      if (entry == kFreeEntry || block >= image_.blocks()) return {};
      if (!is_well_placed(image_, block, entry)) return {};
      const uint64_t sectors = image_.header.block_size / kSectorBytes;
      const uint64_t at = entry * kSectorBytes;
      const auto bytes = TRY(read(at, div_round_up(sectors, 8)));
      const uint64_t set = set_bits(bytes);
      return sink_.field(entry_name(block), at, bytes.size(), set,
                         fmt::format("of {} sectors", sectors));
    });
  }

  const Source& source_;
  const Structures& found_;
  const SparseImage& image_;
  DumpSink& sink_;
};

}  // namespace
}  // namespace vhd

Result<void> dump_vhd(const FileToInspect& file, DumpSink& sink) {
  const vhd::Structures found = TRY(vhd::read_structures(*file.source, file.options.vhd_size));
  return vhd::Dump(*file.source, found, sink).run();
}

}  // namespace underlay
