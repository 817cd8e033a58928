#include "formats/vhdx/vhdx_structures.h"

#include <algorithm>

#include "formats/vhdx/vhdx_log.h"
#include "formats/vhdx/vhdx_parent.h"

namespace underlay::vhdx {
namespace {

using Bytes = std::vector<std::byte>;

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

// Two structures of `length` bytes, of which one is the other's copy.
Result<std::array<Bytes, 2>> read_both(const Source& source, const std::array<uint64_t, 2>& places,
                                       size_t length) {
  std::array<Bytes, 2> both;
  for (size_t i = 0; i < 2; ++i) {
    both[i] = TRY(read_bytes(source, {.offset = places[i], .length = length}));
  }
  return both;
}

// Reads the structures one after the other. Each step uses what the steps before it found.
class Finder {
 public:
  explicit Finder(std::shared_ptr<const Source> file) : file_(std::move(file)) {}

  Result<Structures> find(Log log) {
    TRY(check_signature(*file_));
    TRY(find_header());
    // Before anything else is read: the log may rewrite all of it (2.3.3).
    if (log == Log::kReplay) TRY(replay());
    TRY(find_regions());
    TRY(find_metadata());
    check_bat();
    TRY(find_parent());
    return std::move(found_);
  }

 private:
  const Source& content() const { return content_of(found_, *file_); }
  // Is all of a structure in the file? A defect when not.
  bool is_in_file(std::string_view what, const FileRange& range) {
    if (range_within(range.offset, range.length, content().size())) return true;
    found_.defects.add(
        "structure-beyond-end",
        fail(ErrorKind::kTruncated,
             "its {} is {} bytes at byte {}, but the file ends at byte {}: it is truncated", what,
             range.length, range.offset, content().size()));
    return false;
  }

  Result<void> find_header() {
    const auto headers = TRY(read_both(*file_, kHeadersAt, kHeaderBytes));
    std::vector<std::string> warnings;
    const size_t current = current_header(headers[0], headers[1], warnings, found_.defects);
    add_remarks(found_.remarks, "header-damaged", std::move(warnings), /*is_damage=*/true);
    found_.header = load_header(headers[current]);
    for (size_t i = 0; i < 2; ++i) {
      found_.sequence_numbers[i] = load_header(headers[i]).sequence_number;
    }
    find_header_defects(found_.header, found_.defects);
    return {};
  }

  Result<void> replay();
  Result<void> find_regions();
  Result<void> find_metadata();
  void check_bat();
  Result<void> find_parent();
  Result<Bytes> item_bytes(FileRange& item, size_t least);

  std::shared_ptr<const Source> file_;
  Structures found_;
  bool geometry_is_sound_ = false;
};

Result<void> Finder::replay() {
  const Header& header = found_.header;
  if (is_null(header.log_guid) || !found_.defects.empty()) return {};
  const auto useless = [&](Failure failure) {
    found_.defects.add("log-unreplayable", std::move(failure));
  };
  if (header.log.length > kMaxLogBytes) {
    useless(fail(ErrorKind::kLimit,
                 "its log must be replayed and has {} bytes (LogLength), more than {}: let the "
                 "program that wrote the image open it once, or qemu-img check -r all",
                 header.log.length, kMaxLogBytes));
    return {};
  }
  if (!range_within(header.log.offset, header.log.length, file_->size())) {
    useless(fail(ErrorKind::kTruncated,
                 "its log must be replayed, but its {} bytes at byte {} (LogOffset) reach beyond "
                 "the end of the file, at byte {}: it is truncated",
                 header.log.length, header.log.offset, file_->size()));
    return {};
  }
  const Bytes log = TRY(read_bytes(*file_, header.log));
  auto replayed = replay_log(log, header, file_->size());
  if (!replayed) {
    useless(Failure(std::move(replayed).error()));
    return {};
  }
  found_.remarks.push_back(
      {.code = "log-pending",
       .text = fmt::format("was not closed properly, or is still being written: {} entries of its "
                           "log ({} writes) are replayed in memory; the file stays as it is",
                           replayed->entries, replayed->descriptors)});
  found_.replayed = std::make_shared<const ReplayedSource>(file_, std::move(replayed->overlay));
  return {};
}

Result<void> Finder::find_regions() {
  const auto tables = TRY(read_both(content(), kRegionTablesAt, kRegionTableBytes));
  std::vector<std::string> warnings;
  found_.regions = find_region_table(tables[0], tables[1], warnings, found_.defects);
  add_remarks(found_.remarks, "region-table-damaged", std::move(warnings), /*is_damage=*/true);
  std::vector<FileRange> places = found_.regions.others;
  for (const FileRange& place : {found_.regions.bat, found_.regions.metadata, found_.header.log}) {
    if (place.length > 0) places.push_back(place);
  }
  found_.places = sorted_apart(std::move(places), found_.defects);
  return {};
}

// What an item has; `least` zeros, and the item is none, when it cannot be read.
Result<Bytes> Finder::item_bytes(FileRange& item, size_t least) {
  if (item.length > 0 && is_in_file("metadata item", item)) return read_bytes(content(), item);
  item.length = 0;
  return Bytes(least);
}

Result<void> Finder::find_metadata() {
  const FileRange& region = found_.regions.metadata;
  const FileRange table{.offset = region.offset, .length = kMetadataTableBytes};
  if (region.length == 0 || !is_in_file("metadata table", table)) return {};
  const Bytes bytes = TRY(read_bytes(content(), table));
  MetadataItems& items = found_.items;
  items = find_metadata_items(bytes, region.length, found_.defects);
  for (FileRange* const item :
       {&items.file_parameters, &items.virtual_disk_size, &items.logical_sector_size,
        &items.physical_sector_size, &items.virtual_disk_id, &items.parent_locator}) {
    item->offset += region.offset;
  }
  const Bytes file_parameters = TRY(item_bytes(items.file_parameters, 8));
  const Bytes disk_size = TRY(item_bytes(items.virtual_disk_size, 8));
  const Bytes sector_size = TRY(item_bytes(items.logical_sector_size, 4));
  Defects wrong;
  found_.geometry = parse_geometry(file_parameters, disk_size, sector_size, wrong);
  // Of an item that is not there, that has been told.
  const bool complete = items.file_parameters.length > 0 && items.virtual_disk_size.length > 0 &&
                        items.logical_sector_size.length > 0;
  geometry_is_sound_ = complete && wrong.empty();
  if (complete) found_.defects.add(std::move(wrong));
  return {};
}

void Finder::check_bat() {
  // Else, how many entries the disk needs is not known.
  if (!geometry_is_sound_ || found_.regions.bat.length == 0) return;
  const Geometry& geometry = found_.geometry;
  FileRange bat = found_.regions.bat;
  const uint64_t needed = geometry.entries() * 8;
  if (needed > bat.length) {
    found_.defects.add(
        "bat-too-small",
        fail(ErrorKind::kMalformed,
             "its BAT region of {} bytes is too small for a disk of {} bytes in blocks of {}, "
             "which needs {}",
             bat.length, geometry.virtual_disk_size, geometry.block_size, needed));
    return;
  }
  bat.length = needed;
  found_.has_bat = is_in_file("BAT", bat);
}

Result<void> Finder::find_parent() {
  const FileRange& item = found_.items.parent_locator;
  if (!found_.geometry.has_parent) {
    if (item.length != 0) {
      found_.defects.add("parent-locator-without-parent",
                         fail(ErrorKind::kMalformed,
                              "has a Parent Locator, but is no differencing image (HasParent is "
                              "not set): what its parent has would be shown as zeros"));
    }
    return {};
  }
  if (item.length == 0) {
    found_.defects.add("parent-locator-missing",
                       fail(ErrorKind::kMalformed,
                            "is a differencing image (HasParent), but has no Parent Locator"));
    return {};
  }
  if (!is_in_file("parent locator", item)) return {};
  found_.parent_locator = TRY(read_bytes(content(), item));
  std::vector<std::string> warnings;
  auto parent =
      parse_parent_locator(found_.parent_locator, found_.geometry.logical_sector_size, warnings);
  add_remarks(found_.remarks, "parent-path-unusable", std::move(warnings));
  if (parent) {
    found_.parent = *std::move(parent);
  } else {
    found_.defects.add("parent-locator-wrong", Failure(std::move(parent).error()));
  }
  return {};
}

}  // namespace

Result<Bytes> read_bytes(const Source& source, const FileRange& range) {
  Bytes bytes(static_cast<size_t>(range.length));
  TRY(source.read_at(range.offset, bytes));
  return bytes;
}

Result<Structures> read_structures(std::shared_ptr<const Source> file, Log log) {
  return Finder(std::move(file)).find(log);
}

}  // namespace underlay::vhdx
