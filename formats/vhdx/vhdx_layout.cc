#include "formats/vhdx/vhdx_layout.h"

#include <algorithm>
#include <bit>
#include <cassert>

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

RegionTable parse_region_table(ByteSpan bytes, Defects& defects) {
  RegionTable table;
  const auto count = load_le<uint32_t>(bytes, 8);
  if (count > kMaxTableEntries) {
    defects.add("region-count-wrong",
                fail(ErrorKind::kMalformed, "the region table has EntryCount {}, more than {}",
                     count, kMaxTableEntries));
    return table;
  }
  std::vector<Guid> seen;
  for (uint32_t i = 0; i < count; ++i) {
    const ByteSpan entry = bytes.subspan(kRegionEntriesAt + i * kEntryBytes, kEntryBytes);
    const Guid guid = guid_at(entry, 0);
    const std::string name = to_string(guid);
    const FileRange range{.offset = load_le<uint64_t>(entry, 16),
                          .length = load_le<uint32_t>(entry, 24)};
    seen.push_back(guid);
    if (range.offset < kHeaderSectionBytes || !is_aligned(range.offset, kMiB) ||
        range.length == 0 || !is_aligned(range.length, kMiB)) {
      defects.add(
          "region-misplaced",
          fail(ErrorKind::kMalformed,
               "the region {} is {} bytes at byte {}: both must be multiples of 1 MiB, and not 0",
               name, range.length, range.offset));
    } else if (name == kBatRegion) {
      table.bat = range;
    } else if (name == kMetadataRegion) {
      table.metadata = range;
    } else {
      table.others.push_back(range);
      if (load_le<uint32_t>(entry, 28) == 0) continue;
      defects.add(
          "region-unknown",
          fail(ErrorKind::kUnsupported,
               "needs the region {}, which is unknown: a newer program wrote the image", name));
    }
  }
  std::sort(seen.begin(), seen.end());
  if (std::adjacent_find(seen.begin(), seen.end()) != seen.end()) {
    defects.add("region-twice",
                fail(ErrorKind::kMalformed, "the region table names a region twice"));
  }
  for (const auto& [region, name] :
       {std::pair(&table.bat, "BAT"), std::pair(&table.metadata, "metadata")}) {
    if (region->length > 0) continue;
    defects.add("region-missing",
                fail(ErrorKind::kMalformed, "the region table has no {} region", name));
  }
  return table;
}

// What is known of an item.
struct KnownItem {
  uint32_t least = 0;  // bytes
  FileRange* place = nullptr;
};

KnownItem known_item(std::string_view name, MetadataItems& items) {
  if (name == kFileParameters) return {8, &items.file_parameters};
  if (name == kVirtualDiskSize) return {8, &items.virtual_disk_size};
  if (name == kLogicalSectorSize) return {4, &items.logical_sector_size};
  if (name == kPhysicalSectorSize) return {0, &items.physical_sector_size};
  if (name == kVirtualDiskId) return {0, &items.virtual_disk_id};
  if (name == kParentLocator) return {20, &items.parent_locator};
  return {};
}

// Puts the item of one entry of the table where `items` has it, and its place into `ranges`.
void find_item(ByteSpan entry, uint64_t region_length, MetadataItems& items,
               std::vector<FileRange>& ranges, Defects& defects) {
  const Guid id = guid_at(entry, 0);
  const std::string name = to_string(id);
  const FileRange range{.offset = load_le<uint32_t>(entry, 16),
                        .length = load_le<uint32_t>(entry, 20)};
  const auto flags = load_le<uint32_t>(entry, 24);
  const auto wrong = [&](std::string_view code, std::string_view why) {
    defects.add(code, fail(ErrorKind::kMalformed,
                           "the metadata item {} ({} bytes at byte {} of its region) {}", name,
                           range.length, range.offset, why));
  };
  if (range.length > kMaxItemBytes) return wrong("item-too-long", "is longer than 1 MiB");
  if (range.length > 0 && (range.offset < kMetadataTableBytes ||
                           !range_within(range.offset, range.length, region_length))) {
    return wrong("item-misplaced", "does not lie between the table and the end of the region");
  }
  ranges.push_back(range);
  // Items of the user have names of their own.
  const KnownItem known = (flags & kIsUser) == 0 ? known_item(name, items) : KnownItem{};
  if (known.place == nullptr) {
    if ((flags & kIsRequired) == 0) return;
    return defects.add(
        "item-unknown",
        fail(ErrorKind::kUnsupported,
             "needs the metadata item {}, which is unknown: a newer program wrote the image",
             name));
  }
  if (known.place->length != 0) {
    if (known.least == 0) return;  // no reader needs it
    return wrong("item-twice", "is there twice");
  }
  if (range.length < known.least) return wrong("item-too-short", "is too short");
  *known.place = range;
}

}  // namespace

std::string to_string(const Guid& guid) { return to_text(guid, GuidOrder::kLittleEndian); }

std::string_view region_name(const Guid& guid) {
  const std::string name = to_string(guid);
  if (name == kBatRegion) return "BAT";
  return name == kMetadataRegion ? "metadata" : "";
}

std::string_view item_name(const Guid& id) {
  constexpr std::array kNames = {
      std::pair(kFileParameters, "File Parameters"),
      std::pair(kVirtualDiskSize, "Virtual Disk Size"),
      std::pair(kVirtualDiskId, "Virtual Disk ID"),
      std::pair(kLogicalSectorSize, "Logical Sector Size"),
      std::pair(kPhysicalSectorSize, "Physical Sector Size"),
      std::pair(kParentLocator, "Parent Locator"),
  };
  const std::string name = to_string(id);
  for (const auto& [guid, words] : kNames) {
    if (name == guid) return words;
  }
  return "";
}

Header load_header(ByteSpan bytes) {
  assert(bytes.size() == kHeaderBytes);
  return Header{
      .sequence_number = load_le<uint64_t>(bytes, 8),
      .file_write_guid = guid_at(bytes, 16),
      .data_write_guid = guid_at(bytes, 32),
      .log_guid = guid_at(bytes, 48),
      .log_version = load_le<uint16_t>(bytes, 64),
      .version = load_le<uint16_t>(bytes, 66),
      .log = {.offset = load_le<uint64_t>(bytes, 72), .length = load_le<uint32_t>(bytes, 68)},
  };
}

std::string header_seal_defect(ByteSpan bytes) { return seal_defect(bytes, kHeaderSignature); }

std::string region_table_seal_defect(ByteSpan bytes) {
  return seal_defect(bytes, kRegionSignature);
}

size_t current_header(ByteSpan first, ByteSpan second, std::vector<std::string>& warnings,
                      Defects& defects) {
  const std::array<ByteSpan, 2> headers = {first, second};
  std::array<std::string, 2> wrong;
  for (size_t i = 0; i < 2; ++i) wrong[i] = header_seal_defect(headers[i]);
  const auto sequence = [&](size_t i) { return load_header(headers[i]).sequence_number; };
  const size_t newer = sequence(0) >= sequence(1) ? 0 : 1;
  if (!wrong[0].empty() && !wrong[1].empty()) {
    defects.add("headers-damaged",
                fail(ErrorKind::kMalformed, "the header at byte {} {}, and the one at byte {} {}",
                     kHeadersAt[0], wrong[0], kHeadersAt[1], wrong[1]));
    return newer;
  }
  for (size_t i = 0; i < 2; ++i) {
    if (wrong[i].empty()) continue;
    warnings.push_back(fmt::format("the header at byte {} {}; the one at byte {} is used",
                                   kHeadersAt[i], wrong[i], kHeadersAt[1 - i]));
    return 1 - i;
  }
  // Disk2vhd writes the same header twice.
  if (sequence(0) == sequence(1) && !std::equal(first.begin(), first.end(), second.begin())) {
    defects.add("headers-contradict",
                fail(ErrorKind::kMalformed,
                     "both headers have SequenceNumber {}, but they differ: the image is damaged",
                     sequence(0)));
  }
  return newer;
}

void find_header_defects(const Header& header, Defects& defects) {
  if (header.version != 1) {
    defects.add("version-unsupported",
                fail(ErrorKind::kUnsupported, "the current header has Version {}; only 1 is known",
                     header.version));
  }
  const bool has_log = !is_null(header.log_guid);
  if (header.log_version != 0 && has_log) {
    defects.add("log-version-unsupported",
                fail(ErrorKind::kUnsupported,
                     "its log must be replayed, but has LogVersion {}; only 0 is known",
                     header.log_version));
  }
  if (header.log.length == 0 && !has_log) return;
  if (header.log.length == 0 || !is_aligned(header.log.length, kMiB) ||
      !is_aligned(header.log.offset, kMiB) || header.log.offset < kHeaderSectionBytes) {
    defects.add("log-misplaced",
                fail(ErrorKind::kMalformed,
                     "its log is {} bytes (LogLength) at byte {} (LogOffset): both must be "
                     "multiples of 1 MiB, and not 0",
                     header.log.length, header.log.offset));
  }
}

RegionTable find_region_table(ByteSpan first, ByteSpan second, std::vector<std::string>& warnings,
                              Defects& defects) {
  const std::string first_wrong = region_table_seal_defect(first);
  const std::string second_wrong = region_table_seal_defect(second);
  if (!first_wrong.empty() && !second_wrong.empty()) {
    defects.add(
        "region-tables-damaged",
        fail(ErrorKind::kMalformed, "the region table at byte {} {}, and its copy at byte {} {}",
             kRegionTablesAt[0], first_wrong, kRegionTablesAt[1], second_wrong));
    return {};
  }
  if (!first_wrong.empty()) {
    warnings.push_back(fmt::format("the region table at byte {} {}; its copy at byte {} is used",
                                   kRegionTablesAt[0], first_wrong, kRegionTablesAt[1]));
    return parse_region_table(second, defects);
  }
  Defects of_first;
  Defects of_second;
  RegionTable table = parse_region_table(first, of_first);
  if (!second_wrong.empty()) {
    warnings.push_back(
        fmt::format("the copy of the region table at byte {} {}; the one at byte {} is used",
                    kRegionTablesAt[1], second_wrong, kRegionTablesAt[0]));
  } else if (parse_region_table(second, of_second) != table ||
             of_first.empty() != of_second.empty()) {
    of_first.add("region-tables-differ",
                 fail(ErrorKind::kMalformed,
                      "the region table at byte {} and its copy at byte {} name other places: the "
                      "image is damaged",
                      kRegionTablesAt[0], kRegionTablesAt[1]));
  }
  defects.add(std::move(of_first));
  return table;
}

std::vector<FileRange> sorted_apart(std::vector<FileRange> structures, Defects& defects) {
  std::sort(structures.begin(), structures.end(),
            [](const FileRange& a, const FileRange& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < structures.size(); ++i) {
    if (!structures[i - 1].overlaps(structures[i])) continue;
    defects.add("regions-overlap",
                fail(ErrorKind::kMalformed,
                     "the log or regions at byte {} ({} bytes) and at byte {} overlap",
                     structures[i - 1].offset, structures[i - 1].length, structures[i].offset));
  }
  return structures;
}

MetadataItems find_metadata_items(ByteSpan table, uint64_t region_length, Defects& defects) {
  MetadataItems items;
  if (signature_of(table, kMetadataSignature) != kMetadataSignature) {
    defects.add("metadata-signature-wrong",
                fail(ErrorKind::kMalformed,
                     "the metadata table has the signature \"{}\" where \"{}\" must be",
                     printable(signature_of(table, kMetadataSignature)), kMetadataSignature));
    return items;
  }
  const uint32_t count = load_le<uint16_t>(table, 10);
  if (count > kMaxTableEntries) {
    defects.add("item-count-wrong",
                fail(ErrorKind::kMalformed, "the metadata table has EntryCount {}, more than {}",
                     count, kMaxTableEntries));
    return items;
  }
  std::vector<FileRange> ranges;
  for (uint32_t i = 0; i < count; ++i) {
    const ByteSpan entry = table.subspan(kMetadataEntriesAt + i * kEntryBytes, kEntryBytes);
    find_item(entry, region_length, items, ranges, defects);
  }
  std::erase_if(ranges, [](const FileRange& range) { return range.length == 0; });
  Defects overlaps;
  sorted_apart(std::move(ranges), overlaps);
  if (!overlaps.empty()) {
    defects.add("items-overlap",
                fail(ErrorKind::kMalformed, "items of the metadata region overlap"));
  }
  for (const auto& [name, item] : {std::pair("File Parameters", &items.file_parameters),
                                   std::pair("Virtual Disk Size", &items.virtual_disk_size),
                                   std::pair("Logical Sector Size", &items.logical_sector_size)}) {
    if (item->length > 0) continue;
    defects.add("item-missing",
                fail(ErrorKind::kMalformed, "the metadata region has no item \"{}\"", name));
  }
  return items;
}

uint64_t Geometry::entries() const {
  const uint64_t last = blocks();
  if (last == 0) return 0;
  return (has_parent ? bitmap_entry_of(last - 1) : entry_of(last - 1)) + 1;
}

Geometry parse_geometry(ByteSpan file_parameters, ByteSpan virtual_disk_size,
                        ByteSpan logical_sector_size, Defects& defects) {
  const auto flags = load_le<uint32_t>(file_parameters, 4);
  const Geometry geometry{.virtual_disk_size = load_le<uint64_t>(virtual_disk_size, 0),
                          .block_size = load_le<uint32_t>(file_parameters, 0),
                          .logical_sector_size = load_le<uint32_t>(logical_sector_size, 0),
                          .has_parent = (flags & kHasParent) != 0,
                          .leave_blocks_allocated = (flags & kLeaveBlockAllocated) != 0};
  if ((flags & ~(kLeaveBlockAllocated | kHasParent)) != 0) {
    defects.add("flags-unknown",
                fail(ErrorKind::kUnsupported,
                     "the File Parameters have the flags {:#x}, some of which are unknown", flags));
  }
  if (!std::has_single_bit(geometry.block_size) || geometry.block_size < kMinBlockBytes ||
      geometry.block_size > kMaxBlockBytes) {
    defects.add("block-size-wrong",
                fail(ErrorKind::kMalformed, "BlockSize {} is no power of two from {} to {}",
                     geometry.block_size, kMinBlockBytes, kMaxBlockBytes));
  }
  if (geometry.logical_sector_size != 512 && geometry.logical_sector_size != 4096) {
    defects.add("sector-size-wrong",
                fail(ErrorKind::kMalformed, "LogicalSectorSize {} is neither 512 nor 4096",
                     geometry.logical_sector_size));
    return geometry;
  }
  if (geometry.virtual_disk_size > kMaxDiskBytes ||
      !is_aligned(geometry.virtual_disk_size, geometry.logical_sector_size)) {
    defects.add("size-wrong",
                fail(ErrorKind::kMalformed,
                     "VirtualDiskSize {} is larger than 64 TiB, or no multiple of the logical "
                     "sector size, {}",
                     geometry.virtual_disk_size, geometry.logical_sector_size));
  }
  return geometry;
}

}  // namespace underlay::vhdx
