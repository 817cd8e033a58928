#include "formats/vhdx/vhdx.h"

#include "formats/vhdx/vhdx_layout.h"
#include "formats/vhdx/vhdx_parent.h"
#include "formats/vhdx/vhdx_reader.h"
#include "formats/vhdx/vhdx_structures.h"

namespace underlay {
namespace vhdx {
namespace {

constexpr uint64_t kMaxTableToCheck = 1 << 20;  // bytes of a BAT that is checked at the opening

Result<std::unique_ptr<Reader>> open(const ImageToOpen& image) {
  Structures found = TRY(read_structures(image.source));
  TRY(found.defects.refusal());
  add_texts(image.warnings, found.remarks);
  OpenedImage opened;
  opened.file = image.source;
  opened.replayed = std::move(found.replayed);
  opened.geometry = found.geometry;
  opened.bat = found.regions.bat;
  opened.structures = std::move(found.places);
  opened.identity = identity_of(found.header.data_write_guid, opened.geometry.logical_sector_size);
  opened.parent = std::move(found.parent);
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
