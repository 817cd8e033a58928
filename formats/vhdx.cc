#include "formats/vhdx.h"

#include <algorithm>

#include "formats/vhdx_layout.h"
#include "formats/vhdx_log.h"
#include "formats/vhdx_parent.h"
#include "formats/vhdx_reader.h"

namespace underlay {
namespace vhdx {
namespace {

constexpr uint64_t kMaxTableToCheck = 1 << 20;  // bytes of a BAT that is checked at the opening

using Bytes = std::vector<std::byte>;

Result<Bytes> read_bytes(const Source& source, const FileRange& range) {
  Bytes bytes(static_cast<size_t>(range.length));
  TRY(source.read_at(range.offset, bytes));
  return bytes;
}

Result<void> check_signature(const Source& source) {
  Bytes bytes(std::min<uint64_t>(source.size(), kFileSignature.size()));
  TRY(source.read_at(0, bytes));
  if (as_text(bytes) != kFileSignature) {
    return fail(ErrorKind::kMalformed, "is no VHDX: it begins with \"{}\", not with \"{}\"",
                printable(as_text(bytes)), kFileSignature);
  }
  if (source.size() >= kHeaderSectionBytes) return {};
  return fail(ErrorKind::kTruncated,
              "has {} bytes, but the headers of a VHDX alone have {}: it is truncated",
              source.size(), kHeaderSectionBytes);
}

Result<Header> read_header(const Source& source, std::vector<std::string>& warnings) {
  const Bytes first = TRY(read_bytes(source, {.offset = kHeadersAt[0], .length = kHeaderBytes}));
  const Bytes second = TRY(read_bytes(source, {.offset = kHeadersAt[1], .length = kHeaderBytes}));
  return find_header(first, second, warnings);
}

// The file with its log replayed; null when there is nothing to replay.
Result<std::shared_ptr<const ReplayedSource>> replay(const ImageToOpen& image,
                                                     const Header& header) {
  if (is_null(header.log_guid)) return std::shared_ptr<const ReplayedSource>();
  const Source& file = *image.source;
  if (header.log.length > kMaxLogBytes) {
    return fail(ErrorKind::kLimit,
                "its log must be replayed and has {} bytes (LogLength), more than {}: let the "
                "program that wrote the image open it once, or qemu-img check -r all",
                header.log.length, kMaxLogBytes);
  }
  if (!range_within(header.log.offset, header.log.length, file.size())) {
    return fail(ErrorKind::kTruncated,
                "its log must be replayed, but its {} bytes at byte {} (LogOffset) reach beyond "
                "the end of the file, at byte {}: it is truncated",
                header.log.length, header.log.offset, file.size());
  }
  const Bytes log = TRY(read_bytes(file, header.log));
  Replay replayed = TRY(replay_log(log, header, file.size()));
  image.warnings.push_back(fmt::format(
      "was not closed properly, or is still being written: {} entries of its log ({} writes) are "
      "replayed in memory; the file stays as it is",
      replayed.entries, replayed.descriptors));
  return std::make_shared<const ReplayedSource>(image.source, std::move(replayed.overlay));
}

Result<RegionTable> read_region_table(const Source& source, std::vector<std::string>& warnings) {
  const Bytes first =
      TRY(read_bytes(source, {.offset = kRegionTablesAt[0], .length = kRegionTableBytes}));
  const Bytes second =
      TRY(read_bytes(source, {.offset = kRegionTablesAt[1], .length = kRegionTableBytes}));
  return find_region_table(first, second, warnings);
}

Result<std::vector<FileRange>> structures_of(const Header& header, const RegionTable& regions) {
  std::vector<FileRange> structures = regions.others;
  structures.push_back(regions.bat);
  structures.push_back(regions.metadata);
  if (header.log.length > 0) structures.push_back(header.log);
  return sorted_apart(std::move(structures));
}

Result<void> check_in_file(std::string_view what, const FileRange& range, const Source& source) {
  if (range_within(range.offset, range.length, source.size())) return {};
  return fail(ErrorKind::kTruncated,
              "its {} is {} bytes at byte {}, but the file ends at byte {}: it is truncated", what,
              range.length, range.offset, source.size());
}

// What the metadata region says, and where in the file the parent locator lies, if there is one.
struct Described {
  Geometry geometry;
  std::optional<FileRange> parent_locator;
};
Result<Described> read_metadata(const Source& source, const FileRange& region) {
  const FileRange table{.offset = region.offset, .length = kMetadataTableBytes};
  TRY(check_in_file("metadata table", table, source));
  const Bytes bytes = TRY(read_bytes(source, table));
  const MetadataItems items = TRY(parse_metadata_table(bytes, region.length));
  const auto in_region = [&](FileRange item) {
    item.offset += region.offset;
    return item;
  };
  const auto read_item = [&](const FileRange& item) -> Result<Bytes> {
    TRY(check_in_file("metadata item", in_region(item), source));
    return read_bytes(source, in_region(item));
  };
  const Bytes file_parameters = TRY(read_item(items.file_parameters));
  const Bytes disk_size = TRY(read_item(items.virtual_disk_size));
  const Bytes sector_size = TRY(read_item(items.logical_sector_size));
  Described described;
  described.geometry = TRY(parse_geometry(file_parameters, disk_size, sector_size));
  if (items.parent_locator) described.parent_locator = in_region(*items.parent_locator);
  return described;
}

Result<void> check_bat(const Geometry& geometry, FileRange bat, const Source& source) {
  const uint64_t needed = geometry.entries() * 8;
  if (needed > bat.length) {
    return fail(ErrorKind::kMalformed,
                "its BAT region of {} bytes is too small for a disk of {} bytes in blocks of {}, "
                "which needs {}",
                bat.length, geometry.virtual_disk_size, geometry.block_size, needed);
  }
  bat.length = needed;
  return check_in_file("BAT", bat, source);
}

Result<ParentLink> read_parent(const Source& source, const Described& described,
                               std::vector<std::string>& warnings) {
  if (!described.parent_locator) {
    return fail(ErrorKind::kMalformed,
                "is a differencing image (HasParent), but has no Parent Locator");
  }
  TRY(check_in_file("parent locator", *described.parent_locator, source));
  const Bytes locator = TRY(read_bytes(source, *described.parent_locator));
  return parse_parent_locator(locator, described.geometry.logical_sector_size, warnings);
}

Result<std::unique_ptr<Reader>> open(const ImageToOpen& image) {
  TRY(check_signature(*image.source));
  const Header header = TRY(read_header(*image.source, image.warnings));
  OpenedImage opened;
  opened.file = image.source;
  // Before anything else is read: the log may rewrite all of it (2.3.3).
  opened.replayed = TRY(replay(image, header));
  const Source& content =
      opened.replayed ? static_cast<const Source&>(*opened.replayed) : *opened.file;
  const RegionTable regions = TRY(read_region_table(content, image.warnings));
  opened.structures = TRY(structures_of(header, regions));
  const Described described = TRY(read_metadata(content, regions.metadata));
  opened.geometry = described.geometry;
  opened.bat = regions.bat;
  TRY(check_bat(opened.geometry, opened.bat, content));
  opened.identity = identity_of(header.data_write_guid, opened.geometry.logical_sector_size);
  if (opened.geometry.has_parent) {
    opened.parent = TRY(read_parent(content, described, image.warnings));
  }
  const bool check_table = opened.geometry.entries() * 8 <= kMaxTableToCheck;
  auto reader = std::make_unique<VhdxReader>(std::move(opened), image.caches);
  if (check_table) TRY(reader->check_table());
  return reader;
}

}  // namespace
}  // namespace vhdx

ProbeResult probe_vhdx(const ProbeInput& input) {
  constexpr std::string_view kSignature = vhdx::kFileSignature;
  if (input.head.size() < kSignature.size()) return {};
  const std::string_view found = as_text(input.head.first(kSignature.size()));
  if (found == kSignature) return {.verdict = ProbeVerdict::kYes, .reason = ""};
  size_t wrong = 0;
  for (size_t i = 0; i < kSignature.size(); ++i) wrong += found[i] != kSignature[i] ? 1u : 0u;
  if (wrong != 1) return {};
  return {.verdict = ProbeVerdict::kDamaged,
          .reason = fmt::format("begins with \"{}\", which is \"{}\" but for one byte",
                                printable(found), kSignature)};
}

Result<std::unique_ptr<Reader>> open_vhdx(const ImageToOpen& image) { return vhdx::open(image); }

}  // namespace underlay
