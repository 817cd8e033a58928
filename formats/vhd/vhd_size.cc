#include "formats/vhd/vhd_size.h"

#include <algorithm>

namespace underlay::vhd {
namespace {

constexpr std::string_view kHowToForce =
    "--image-opts driver=vpc,force_size_calc=chs|current_size,file.filename=... forces one of them";

}  // namespace

DiskSize disk_size(const Footer& footer, uint64_t capacity, ImageOptions::VhdSize asked) {
  using VhdSize = ImageOptions::VhdSize;
  using Rule = DiskSize::Rule;
  const bool saturated = footer.geometry_is_saturated();
  const uint64_t chs = saturated ? footer.current_size : footer.chs_size();
  const uint64_t by_creator = footer.creator_means_current_size() ? footer.current_size : chs;
  DiskSize size{.bytes = by_creator, .by_geometry = chs};
  switch (asked) {
    case VhdSize::kByCreator:
      size.rule = saturated ? Rule::kSaturated : Rule::kCreator;
      break;
    case VhdSize::kChs:
      size.bytes = chs;
      size.rule = Rule::kForced;
      break;
    case VhdSize::kCurrentSize:
      size.bytes = footer.current_size;
      size.rule = Rule::kForced;
      break;
    case VhdSize::kLargest:
      size.bytes = std::max(by_creator, std::min(capacity, std::max(chs, footer.current_size)));
      size.rule = Rule::kLargest;
      break;
  }
  return size;
}

void find_size_defects(const DiskSize& size, const Footer& footer, uint64_t capacity,
                       Defects& defects, Remarks& remarks) {
  if (size.bytes > capacity) {
    defects.add(
        "size-beyond-capacity",
        fail(ErrorKind::kTruncated,
             "its size is {} bytes (current_size {}, by geometry {}), but the image holds at most "
             "{}: it is truncated or damaged, or the other size is meant: {}",
             size.bytes, footer.current_size, size.by_geometry, capacity, kHowToForce));
    return;
  }
  if (size.by_geometry == footer.current_size || size.rule != DiskSize::Rule::kCreator) return;
  remarks.push_back(
      {.code = "sizes-differ",
       .text = fmt::format(
           "current_size is {} bytes, but the geometry amounts to {}; creator \"{}\" means {}; {}",
           footer.current_size, size.by_geometry, footer.creator(), size.bytes, kHowToForce)});
}

}  // namespace underlay::vhd
