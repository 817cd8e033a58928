#include "formats/vhd/vhd.h"

#include "formats/options/option_values.h"
#include "formats/vhd/vhd_footer.h"
#include "formats/vhd/vhd_reader.h"
#include "formats/vhd/vhd_structures.h"

namespace underlay {

ProbeResult probe_vhd(const ProbeInput& input) {
  Defects defects;
  if (!vhd::find_footer(input.head, input.tail, input.size, defects)) return {};
  const auto sound = defects.refusal();
  if (sound) return {.verdict = ProbeVerdict::kYes, .reason = ""};
  return {.verdict = ProbeVerdict::kDamaged, .reason = sound.error().message};
}

Result<bool> set_vhd_option(ImageOptions& options, std::string_view key, std::string_view value) {
  if (key != "force_size_calc") return false;
  TRY(check_one_of(key, value, {"auto", "chs", "current_size"}));
  using VhdSize = ImageOptions::VhdSize;
  options.vhd_size = VhdSize::kByCreator;
  if (value == "chs") options.vhd_size = VhdSize::kChs;
  if (value == "current_size") options.vhd_size = VhdSize::kCurrentSize;
  return true;
}

Result<std::unique_ptr<Reader>> open_vhd(const ImageToOpen& image) {
  vhd::Structures found = TRY(vhd::read_structures(*image.source, image.options.vhd_size));
  TRY(found.defects.refusal());
  add_texts(image.warnings, found.remarks);
  const vhd::Footer& footer = found.found.footer;
  if (footer.disk_type == vhd::kTypeFixed) {
    return std::make_unique<vhd::FixedReader>(image.source, found.size.bytes, footer.unique_id);
  }
  TRY(vhd::check_blocks(found.sparse, *image.source));
  return std::make_unique<vhd::SparseReader>(image.source, std::move(found.sparse), image.caches);
}

}  // namespace underlay
