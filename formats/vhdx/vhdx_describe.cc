#include "formats/vhdx/vhdx_describe.h"

#include <algorithm>

#include "formats/inspection/image_facts.h"
#include "formats/utf16.h"
#include "formats/vhdx/vhdx_parent.h"
#include "formats/vhdx/vhdx_structures.h"
#include "formats/windows_path.h"

namespace underlay {
namespace vhdx {
namespace {

using Json = nlohmann::ordered_json;

constexpr FileRange kCreator{.offset = 8, .length = 512};  // 2.2.1, UTF-16LE

Result<std::string> creator_of(const Source& source) {
  const auto bytes = TRY(read_bytes(source, kCreator));
  return utf16_field(bytes, ByteOrder::kLittle);
}

// The first `length` bytes of an item that no reader needs; none when it is not there.
Result<std::vector<std::byte>> optional_item(const Source& source, FileRange item, size_t length) {
  if (item.length < length || !range_within(item.offset, length, source.size())) {
    return std::vector<std::byte>();
  }
  item.length = length;
  return read_bytes(source, item);
}

Json json_of(const FileRange& range) {
  return {{"offset", range.offset}, {"length", range.length}};
}

Json log_of(const Structures& found) {
  Json log = json_of(found.header.log);
  log["version"] = found.header.log_version;
  log["guid"] = to_string(found.header.log_guid);
  log["state"] = is_null(found.header.log_guid) ? "clean"
                 : found.replayed               ? "must be replayed"
                                                : "cannot be replayed";
  return log;
}

Json regions_of(const Structures& found) {
  Json regions = {{"bat", json_of(found.regions.bat)},
                  {"metadata", json_of(found.regions.metadata)}};
  for (const FileRange& other : found.regions.others) regions["others"].push_back(json_of(other));
  return regions;
}

// The key-value pairs of the parent locator, of whatever type it is; null: it is damaged.
Json locator_of(ByteSpan locator) {
  const auto values = locator_values(locator);
  if (!values) return nullptr;
  Json json = {{"type", to_string(guid_at(locator, 0))}};
  for (const auto& [key, value] : *values) json["values"][key] = value ? Json(*value) : Json();
  return json;
}

Result<Json> specific_of(const Structures& found, const Source& content) {
  const Geometry& geometry = found.geometry;
  Json specific = {
      {"subformat", geometry.has_parent               ? "differencing"
                    : geometry.leave_blocks_allocated ? "fixed"
                                                      : "dynamic"},
      {"version", found.header.version},
      {"sequence-numbers", found.sequence_numbers},
      {"file-write-guid", to_string(found.header.file_write_guid)},
      {"data-write-guid", to_string(found.header.data_write_guid)},
      {"log", log_of(found)},
      {"regions", regions_of(found)},
      {"block-size", geometry.block_size},
      {"logical-sector-size", geometry.logical_sector_size},
  };
  const auto physical = TRY(optional_item(content, found.items.physical_sector_size, 4));
  if (!physical.empty()) specific["physical-sector-size"] = load_le<uint32_t>(physical, 0);
  specific["has-parent"] = geometry.has_parent;
  specific["leave-blocks-allocated"] = geometry.leave_blocks_allocated;
  const auto id = TRY(optional_item(content, found.items.virtual_disk_id, sizeof(Guid)));
  if (!id.empty()) specific["virtual-disk-id"] = to_string(guid_at(id, 0));
  if (!found.parent_locator.empty()) specific["parent-locator"] = locator_of(found.parent_locator);
  return specific;
}

void add_names(const Structures& found, ImageFacts& facts) {
  if (found.parent_locator.empty()) return;
  const auto values = locator_values(found.parent_locator);
  if (!values) return;
  for (const std::string_view key : kPathKeys) {
    const auto path = values->find(std::string(key));
    if (path == values->end() || !path->second) continue;
    NameInImage name{
        .role = fmt::format("parent ({})", key), .name = *path->second, .format = "vhdx"};
    const std::string tried = name_of_windows_path(name.name);
    if (tried != name.name && !tried.empty()) name.otherwise.push_back(tried);
    facts.names.push_back(std::move(name));
  }
  if (!found.parent || found.parent->names.empty()) return;
  facts.backing_filename = found.parent->names.front();
  facts.backing_filename_format = *found.parent->format;
}

}  // namespace
}  // namespace vhdx

Result<ImageFacts> describe_vhdx(const FileToInspect& file) {
  const vhdx::Structures found = TRY(vhdx::read_structures(file.source));
  const vhdx::Geometry& geometry = found.geometry;
  if (found.items.virtual_disk_size.length == 0) {
    // There is no size to tell; the first defect is why.
    TRY(found.defects.refusal());
  }
  ImageFacts facts;
  facts.virtual_size = geometry.virtual_disk_size;
  if (found.items.file_parameters.length > 0) facts.cluster_size = geometry.block_size;
  facts.dirty = !is_null(found.header.log_guid);
  facts.creator = TRY(vhdx::creator_of(*file.source));
  if (found.items.logical_sector_size.length > 0) {
    facts.identity = vhdx::identity_of(found.header.data_write_guid, geometry.logical_sector_size);
  }
  facts.specific = TRY(vhdx::specific_of(found, vhdx::content_of(found, *file.source)));
  vhdx::add_names(found, facts);
  for (const Defect& defect : found.defects) facts.findings.push_back(finding_of(defect));
  for (const Remark& remark : found.remarks) facts.findings.push_back(finding_of(remark));
  return facts;
}

}  // namespace underlay
