#include "formats/vdi/vdi_describe.h"

#include "formats/inspection/image_facts.h"
#include "formats/vdi/vdi_head.h"

namespace underlay {
namespace vdi {
namespace {

// "<<< Oracle VM VirtualBox Disk Image >>>" without what every such text has.
std::string creator_in(std::string text) {
  constexpr std::string_view kBefore = "<<< ";
  constexpr std::string_view kBehind = " Disk Image >>>";
  if (text.starts_with(kBefore)) text.erase(0, kBefore.size());
  if (text.ends_with(kBehind)) text.resize(text.size() - kBehind.size());
  return text;
}

nlohmann::ordered_json specific_of(const Header& header, ByteSpan bytes) {
  return {{"image-type", header.image_type},
          {"subformat", type_name(header.image_type)},
          {"version", fmt::format("{}.{}", header.major(), header.minor())},
          {"image-flags", header.image_flags},
          {"text", text_of(bytes)},
          {"description", description_of(bytes, header)},
          {"offset-bmap", header.offset_bmap},
          {"offset-data", header.offset_data},
          {"sector-size", header.sector_size},
          {"block-size", header.block_size},
          {"block-extra", header.block_extra},
          {"blocks-in-image", header.blocks_in_image},
          {"blocks-allocated", header.blocks_allocated},
          {"uuid-image", to_string(header.uuid_image)},
          {"uuid-last-snap", to_string(header.uuid_last_snap)},
          {"uuid-link", to_string(header.uuid_link)},
          {"uuid-parent", to_string(header.uuid_parent)}};
}

}  // namespace
}  // namespace vdi

Result<ImageFacts> describe_vdi(const FileToInspect& file) {
  const vdi::HeaderBytes bytes = TRY(vdi::read_header_bytes(*file.source));
  const vdi::Header header = vdi::load_header(bytes);
  ImageFacts facts;
  facts.virtual_size = header.disk_size;
  facts.cluster_size = header.block_size;
  facts.creator = vdi::creator_in(vdi::text_of(bytes));
  facts.identity = vdi::to_string(header.uuid_image);
  facts.specific = vdi::specific_of(header, bytes);
  for (const Defect& defect : vdi::header_defects(header, file.source->size())) {
    facts.findings.push_back(finding_of(defect));
  }
  if (!is_null(header.uuid_link)) {
    facts.findings.push_back(
        {.kind = Finding::Kind::kNotice,
         .code = "parent-unnamed",
         .message =
             fmt::format("knows its parent by uuid_link {} alone: where it lies must be said",
                         vdi::to_string(header.uuid_link))});
  }
  return facts;
}

}  // namespace underlay
