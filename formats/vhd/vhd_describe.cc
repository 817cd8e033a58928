#include "formats/vhd/vhd_describe.h"

#include <algorithm>
#include <array>

#include "formats/inspection/image_facts.h"
#include "formats/vhd/vhd_structures.h"
#include "formats/vhd/vhd_words.h"
#include "formats/windows_path.h"

namespace underlay {
namespace vhd {
namespace {

using Json = nlohmann::ordered_json;

// Why the disk has this size.
std::string rule_of(const Structures& found) {
  switch (found.size.rule) {
    case DiskSize::Rule::kSaturated:
      return "the geometry is the largest that can be stated: current_size";
    case DiskSize::Rule::kForced:
      return "force_size_calc";
    case DiskSize::Rule::kLargest:
      return "of a parent: the larger one";
    case DiskSize::Rule::kCreator:
      break;
  }
  const Footer& footer = found.found.footer;
  return fmt::format("creator \"{}\" means {}", printable(footer.creator()),
                     footer.creator_means_current_size() ? "current_size" : "the geometry");
}

void put_footer(const Structures& found, const FooterDetails& details, Json& json) {
  const Footer& footer = found.found.footer;
  json["subformat"] = type_name(footer.disk_type);
  json["disk-type"] = footer.disk_type;
  json["current-size"] = footer.current_size;
  json["geometry-size"] = footer.chs_size();
  json["size-rule"] = rule_of(found);
  json["geometry"] = {{"cylinders", footer.cylinders},
                      {"heads", footer.heads},
                      {"sectors-per-track", footer.sectors_per_track}};
  json["original-size"] = details.original_size;
  json["creator-application"] = code_text(footer.creator());
  json["creator-version"] = version_text(footer.creator_version);
  const std::string_view host_os(details.creator_host_os.data(), details.creator_host_os.size());
  json["creator-host-os"] = code_text(host_os);
  if (const auto words = host_os_of(host_os); !words.empty()) {
    json["creator-host-os-name"] = words;
  }
  json["time-stamp"] = date_of(details.time_stamp);
  json["unique-id"] = to_string(footer.unique_id);
  json["features"] = details.features;
  json["file-format-version"] =
      fmt::format("{}.{}", details.file_format_version >> 16, details.file_format_version & 0xffff);
  json["saved-state"] = details.saved_state != 0;
  json["hidden"] = details.hidden != 0;
  json["footer-offset"] = found.found.at;
}

void put_batmap(const SparseImage& sparse, Json& json) {
  if (!sparse.batmap_header) return;
  const BatmapHeader& header = *sparse.batmap_header;
  json["batmap"] = {{"offset", header.batmap_offset},
                    {"length", header.batmap_bytes},
                    {"version", version_text(header.batmap_version)},
                    {"encrypted", header.is_encrypted},
                    {"used", sparse.batmap.has_value()}};
}

void put_parent(const Structures& found, Json& json) {
  const DynamicHeader& header = found.sparse.header;
  json["parent-unique-id"] = to_string(header.parent_unique_id);
  json["parent-time-stamp"] = date_of(header.parent_time_stamp);
  json["parent-unicode-name"] = parent_unicode_name(header, unmarked_order(found.found.footer));
  json["parent-locators"] = Json::array();
  for (const ReadLocator& read : found.locators) {
    json["parent-locators"].push_back({{"platform-code", code_text(read.locator.code())},
                                       {"data-space", read.locator.data_space},
                                       {"data-length", read.locator.data_length},
                                       {"data-offset", read.locator.data_offset},
                                       {"name", read.text},
                                       {"used", read.defect.empty()}});
  }
}

void put_header(const Structures& found, Json& json) {
  const DynamicHeader& header = found.sparse.header;
  json["data-offset"] = found.found.footer.data_offset;
  json["table-offset"] = header.table_offset;
  json["max-table-entries"] = header.max_table_entries;
  json["block-size"] = header.block_size;
  if (header.block_size != 0) json["blocks"] = found.sparse.blocks();
  put_batmap(found.sparse, json);
  if (found.found.footer.disk_type == kTypeDifferencing) put_parent(found, json);
}

// `written`: as the image has it; `tried`: what the reader makes of it.
NameInImage name_of(std::string role, std::string written, std::vector<std::string> tried,
                    const std::string& format) {
  std::erase_if(tried, [&](const std::string& name) { return name.empty() || name == written; });
  return {.role = std::move(role),
          .name = std::move(written),
          .format = format,
          .otherwise = std::move(tried)};
}

void add_names(const Structures& found, ImageFacts& facts) {
  const auto& parent = found.sparse.parent;
  if (!parent) return;
  const std::string format = *parent->format;
  for (const ReadLocator& read : found.locators) {
    if (read.text.empty()) continue;
    const bool followed = read.defect.empty();
    facts.names.push_back(
        name_of(fmt::format("parent ({})", code_text(read.locator.code())), read.text,
                followed ? names_of_locator(read) : std::vector<std::string>(), format));
    facts.names.back().followed = followed;
  }
  const std::string name =
      parent_unicode_name(found.sparse.header, unmarked_order(found.found.footer));
  if (!name.empty()) {
    facts.names.push_back(
        name_of("parent (parent_unicode_name)", name, {name_of_windows_path(name)}, format));
  }
  if (parent->names.empty()) return;
  facts.backing_filename = parent->names.front();
  facts.backing_filename_format = format;
}

}  // namespace
}  // namespace vhd

Result<ImageFacts> describe_vhd(const FileToInspect& file) {
  const vhd::Structures found = TRY(vhd::read_structures(*file.source, file.options.vhd_size));
  const vhd::Footer& footer = found.found.footer;
  ImageFacts facts;
  facts.virtual_size = found.size.bytes;
  facts.specific = nlohmann::ordered_json::object();
  vhd::put_footer(found, TRY(vhd::read_footer_details(*file.source, found.found.at)),
                  facts.specific);
  if (found.has_header) {
    facts.cluster_size = found.sparse.header.block_size;
    facts.encrypted = found.sparse.batmap_header && found.sparse.batmap_header->is_encrypted;
    vhd::put_header(found, facts.specific);
    vhd::add_names(found, facts);
  }
  facts.creator = vhd::creator_of(footer);
  facts.identity = vhd::to_string(footer.unique_id);
  for (const Defect& defect : found.defects) facts.findings.push_back(finding_of(defect));
  for (const Remark& remark : found.remarks) facts.findings.push_back(finding_of(remark));
  return facts;
}

}  // namespace underlay
