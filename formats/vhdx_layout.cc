#include "formats/vhdx_layout.h"

#include <algorithm>
#include <bit>

#include "formats/crc32c.h"

namespace underlay::vhdx {
namespace {

constexpr std::string_view kHeaderSignature = "head";
constexpr std::string_view kRegionSignature = "regi";
constexpr std::string_view kMetadataSignature = "metadata";
constexpr size_t kChecksumAt = 4;  // of headers and region tables
constexpr size_t kRegionEntriesAt = 16;
constexpr size_t kMetadataEntriesAt = 32;
constexpr size_t kEntryBytes = 32;  // of the region and the metadata table
constexpr uint32_t kIsUser = 1;
constexpr uint32_t kIsRequired = 4;
constexpr uint32_t kLeaveBlockAllocated = 1;
constexpr uint32_t kHasParent = 2;

constexpr std::string_view kBatRegion = "2dc27766-f623-4200-9d64-115e9bfd4a08";
constexpr std::string_view kMetadataRegion = "8b7ca206-4790-4b9a-b8fe-575f050f886e";
constexpr std::string_view kFileParameters = "caa16737-fa36-4d43-b3b6-33f0aa44e76b";
constexpr std::string_view kVirtualDiskSize = "2fa54224-cd1b-4876-b211-5dbed83bf4b8";
constexpr std::string_view kVirtualDiskId = "beca12ab-b2e6-4523-93ef-c309e000c746";
constexpr std::string_view kLogicalSectorSize = "8141bf1d-a96f-4709-ba47-f233a8faab5f";
constexpr std::string_view kPhysicalSectorSize = "cda348c7-445d-4471-9cc9-e9885251c556";
constexpr std::string_view kParentLocator = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c";

std::string_view signature_of(ByteSpan bytes, std::string_view expected) {
  return as_text(bytes.first(expected.size()));
}

// What is wrong with a structure's signature or checksum, "" when nothing.
std::string seal_defect(ByteSpan bytes, std::string_view signature) {
  if (signature_of(bytes, signature) != signature) {
    return fmt::format("has the signature \"{}\" where \"{}\" must be",
                       printable(signature_of(bytes, signature)), signature);
  }
  const auto stored = load_le<uint32_t>(bytes, kChecksumAt);
  const uint32_t computed = crc32c_around(bytes, kChecksumAt);
  if (stored == computed) return "";
  return fmt::format("has the checksum {:#010x}, but its bytes have {:#010x}", stored, computed);
}

Result<Header> parse_header(ByteSpan bytes) {
  const auto version = load_le<uint16_t>(bytes, 66);
  if (version != 1) {
    return fail(ErrorKind::kUnsupported, "the current header has Version {}; only 1 is known",
                version);
  }
  Header header{
      .sequence_number = load_le<uint64_t>(bytes, 8),
      .data_write_guid = guid_at(bytes, 32),
      .log_guid = guid_at(bytes, 48),
      .log = {.offset = load_le<uint64_t>(bytes, 72), .length = load_le<uint32_t>(bytes, 68)},
  };
  const auto log_version = load_le<uint16_t>(bytes, 64);
  if (log_version != 0 && !is_null(header.log_guid)) {
    return fail(ErrorKind::kUnsupported,
                "its log must be replayed, but has LogVersion {}; only 0 is known", log_version);
  }
  if (header.log.length == 0 && is_null(header.log_guid)) return header;
  if (header.log.length == 0 || !is_aligned(header.log.length, kMiB) ||
      !is_aligned(header.log.offset, kMiB) || header.log.offset < kHeaderSectionBytes) {
    return fail(ErrorKind::kMalformed,
                "its log is {} bytes (LogLength) at byte {} (LogOffset): both must be multiples of "
                "1 MiB, and not 0",
                header.log.length, header.log.offset);
  }
  return header;
}

Result<RegionTable> parse_region_table(ByteSpan bytes) {
  const auto count = load_le<uint32_t>(bytes, 8);
  if (count > kMaxTableEntries) {
    return fail(ErrorKind::kMalformed, "the region table has EntryCount {}, more than {}", count,
                kMaxTableEntries);
  }
  RegionTable table;
  std::vector<Guid> seen;
  for (uint32_t i = 0; i < count; ++i) {
    const ByteSpan entry = bytes.subspan(kRegionEntriesAt + i * kEntryBytes, kEntryBytes);
    const Guid guid = guid_at(entry, 0);
    const std::string name = to_string(guid);
    const FileRange range{.offset = load_le<uint64_t>(entry, 16),
                          .length = load_le<uint32_t>(entry, 24)};
    if (range.offset < kHeaderSectionBytes || !is_aligned(range.offset, kMiB) ||
        range.length == 0 || !is_aligned(range.length, kMiB)) {
      return fail(
          ErrorKind::kMalformed,
          "the region {} is {} bytes at byte {}: both must be multiples of 1 MiB, and not 0", name,
          range.length, range.offset);
    }
    seen.push_back(guid);
    if (name == kBatRegion) {
      table.bat = range;
    } else if (name == kMetadataRegion) {
      table.metadata = range;
    } else if (load_le<uint32_t>(entry, 28) != 0) {
      return fail(ErrorKind::kUnsupported,
                  "needs the region {}, which is unknown: a newer program wrote the image", name);
    } else {
      table.others.push_back(range);
    }
  }
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) {
    return fail(ErrorKind::kMalformed, "the region table names a region twice");
  }
  if (table.bat.length == 0 || table.metadata.length == 0) {
    return fail(ErrorKind::kMalformed, "the region table has no {} region",
                table.bat.length == 0 ? "BAT" : "metadata");
  }
  return table;
}

// What is known of an item.
struct KnownItem {
  uint32_t least = 0;          // bytes
  FileRange* place = nullptr;  // null: nobody asks for it
};

Failure wrong_item(const Guid& id, const FileRange& range, std::string_view why) {
  return fail(ErrorKind::kMalformed, "the metadata item {} ({} bytes at byte {} of its region) {}",
              to_string(id), range.length, range.offset, why);
}

// The items that a table names; `ranges` collects where they lie.
Result<MetadataItems> known_items(ByteSpan table, uint32_t count, uint64_t region_length,
                                  std::vector<FileRange>& ranges) {
  MetadataItems items;
  FileRange locator;
  for (uint32_t i = 0; i < count; ++i) {
    const ByteSpan entry = table.subspan(kMetadataEntriesAt + i * kEntryBytes, kEntryBytes);
    const Guid id = guid_at(entry, 0);
    const std::string name = to_string(id);
    const FileRange range{.offset = load_le<uint32_t>(entry, 16),
                          .length = load_le<uint32_t>(entry, 20)};
    const auto flags = load_le<uint32_t>(entry, 24);
    if (range.length > kMaxItemBytes) return wrong_item(id, range, "is longer than 1 MiB");
    if (range.length > 0 && (range.offset < kMetadataTableBytes ||
                             !range_within(range.offset, range.length, region_length))) {
      return wrong_item(id, range, "does not lie between the table and the end of the region");
    }
    ranges.push_back(range);
    const bool system = (flags & kIsUser) == 0;
    std::optional<KnownItem> known;
    if (system && name == kFileParameters) known = {8, &items.file_parameters};
    if (system && name == kVirtualDiskSize) known = {8, &items.virtual_disk_size};
    if (system && name == kLogicalSectorSize) known = {4, &items.logical_sector_size};
    if (system && name == kParentLocator) known = {20, &locator};
    if (system && (name == kVirtualDiskId || name == kPhysicalSectorSize)) known = KnownItem{};
    if (!known && (flags & kIsRequired) != 0) {
      return fail(ErrorKind::kUnsupported,
                  "needs the metadata item {}, which is unknown: a newer program wrote the image",
                  name);
    }
    if (!known || known->place == nullptr) continue;
    if (known->place->length != 0) return wrong_item(id, range, "is there twice");
    if (range.length < known->least) return wrong_item(id, range, "is too short");
    *known->place = range;
  }
  if (locator.length > 0) items.parent_locator = locator;
  return items;
}

}  // namespace

std::string to_string(const Guid& guid) { return to_text(guid, GuidOrder::kLittleEndian); }

Result<Header> find_header(ByteSpan first, ByteSpan second, std::vector<std::string>& warnings) {
  const std::array<ByteSpan, 2> headers = {first, second};
  std::array<std::string, 2> defects;
  for (size_t i = 0; i < 2; ++i) defects[i] = seal_defect(headers[i], kHeaderSignature);
  if (!defects[0].empty() && !defects[1].empty()) {
    return fail(ErrorKind::kMalformed, "the header at byte {} {}, and the one at byte {} {}",
                kHeadersAt[0], defects[0], kHeadersAt[1], defects[1]);
  }
  for (size_t i = 0; i < 2; ++i) {
    if (defects[i].empty()) continue;
    warnings.push_back(fmt::format("the header at byte {} {}; the one at byte {} is used",
                                   kHeadersAt[i], defects[i], kHeadersAt[1 - i]));
    return parse_header(headers[1 - i]);
  }
  const auto sequence = [&](size_t i) { return load_le<uint64_t>(headers[i], 8); };
  // Disk2vhd writes the same header twice.
  if (sequence(0) == sequence(1) && !std::equal(first.begin(), first.end(), second.begin())) {
    return fail(ErrorKind::kMalformed,
                "both headers have SequenceNumber {}, but they differ: the image is damaged",
                sequence(0));
  }
  return parse_header(headers[sequence(0) >= sequence(1) ? 0 : 1]);
}

Result<RegionTable> find_region_table(ByteSpan first, ByteSpan second,
                                      std::vector<std::string>& warnings) {
  const std::string first_defect = seal_defect(first, kRegionSignature);
  const std::string second_defect = seal_defect(second, kRegionSignature);
  if (!first_defect.empty() && !second_defect.empty()) {
    return fail(ErrorKind::kMalformed, "the region table at byte {} {}, and its copy at byte {} {}",
                kRegionTablesAt[0], first_defect, kRegionTablesAt[1], second_defect);
  }
  if (!first_defect.empty()) {
    warnings.push_back(fmt::format("the region table at byte {} {}; its copy at byte {} is used",
                                   kRegionTablesAt[0], first_defect, kRegionTablesAt[1]));
    return parse_region_table(second);
  }
  RegionTable table = TRY(parse_region_table(first));
  if (!second_defect.empty()) {
    warnings.push_back(
        fmt::format("the copy of the region table at byte {} {}; the one at byte {} "
                    "is used",
                    kRegionTablesAt[1], second_defect, kRegionTablesAt[0]));
    return table;
  }
  if (TRY(parse_region_table(second)) == table) return table;
  return fail(ErrorKind::kMalformed,
              "the region table at byte {} and its copy at byte {} name other places: the image is "
              "damaged",
              kRegionTablesAt[0], kRegionTablesAt[1]);
}

Result<std::vector<FileRange>> sorted_apart(std::vector<FileRange> structures) {
  std::sort(structures.begin(), structures.end(),
            [](const FileRange& a, const FileRange& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < structures.size(); ++i) {
    if (!structures[i - 1].overlaps(structures[i])) continue;
    return fail(ErrorKind::kMalformed,
                "the log or regions at byte {} ({} bytes) and at byte {} overlap",
                structures[i - 1].offset, structures[i - 1].length, structures[i].offset);
  }
  return structures;
}

Result<MetadataItems> parse_metadata_table(ByteSpan table, uint64_t region_length) {
  if (signature_of(table, kMetadataSignature) != kMetadataSignature) {
    return fail(ErrorKind::kMalformed,
                "the metadata table has the signature \"{}\" where \"{}\" must be",
                printable(signature_of(table, kMetadataSignature)), kMetadataSignature);
  }
  const uint32_t count = load_le<uint16_t>(table, 10);
  if (count > kMaxTableEntries) {
    return fail(ErrorKind::kMalformed, "the metadata table has EntryCount {}, more than {}", count,
                kMaxTableEntries);
  }
  std::vector<FileRange> ranges;
  MetadataItems items = TRY(known_items(table, count, region_length, ranges));
  std::erase_if(ranges, [](const FileRange& range) { return range.length == 0; });
  if (!sorted_apart(std::move(ranges))) {
    return fail(ErrorKind::kMalformed, "items of the metadata region overlap");
  }
  for (const auto& [name, item] : {std::pair("File Parameters", &items.file_parameters),
                                   std::pair("Virtual Disk Size", &items.virtual_disk_size),
                                   std::pair("Logical Sector Size", &items.logical_sector_size)}) {
    if (item->length > 0) continue;
    return fail(ErrorKind::kMalformed, "the metadata region has no item \"{}\"", name);
  }
  return items;
}

uint64_t Geometry::entries() const {
  const uint64_t last = blocks();
  if (last == 0) return 0;
  return (has_parent ? bitmap_entry_of(last - 1) : entry_of(last - 1)) + 1;
}

Result<Geometry> parse_geometry(ByteSpan file_parameters, ByteSpan virtual_disk_size,
                                ByteSpan logical_sector_size) {
  const auto flags = load_le<uint32_t>(file_parameters, 4);
  const Geometry geometry{.virtual_disk_size = load_le<uint64_t>(virtual_disk_size, 0),
                          .block_size = load_le<uint32_t>(file_parameters, 0),
                          .logical_sector_size = load_le<uint32_t>(logical_sector_size, 0),
                          .has_parent = (flags & kHasParent) != 0};
  if ((flags & ~(kLeaveBlockAllocated | kHasParent)) != 0) {
    return fail(ErrorKind::kUnsupported,
                "the File Parameters have the flags {:#x}, some of which are unknown", flags);
  }
  if (!std::has_single_bit(geometry.block_size) || geometry.block_size < kMinBlockBytes ||
      geometry.block_size > kMaxBlockBytes) {
    return fail(ErrorKind::kMalformed, "BlockSize {} is no power of two from {} to {}",
                geometry.block_size, kMinBlockBytes, kMaxBlockBytes);
  }
  if (geometry.logical_sector_size != 512 && geometry.logical_sector_size != 4096) {
    return fail(ErrorKind::kMalformed, "LogicalSectorSize {} is neither 512 nor 4096",
                geometry.logical_sector_size);
  }
  if (geometry.virtual_disk_size > kMaxDiskBytes ||
      !is_aligned(geometry.virtual_disk_size, geometry.logical_sector_size)) {
    return fail(ErrorKind::kMalformed,
                "VirtualDiskSize {} is larger than 64 TiB, or no multiple of the logical sector "
                "size, {}",
                geometry.virtual_disk_size, geometry.logical_sector_size);
  }
  return geometry;
}

}  // namespace underlay::vhdx
