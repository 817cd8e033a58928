#include "formats/vdi/vdi.h"

#include "formats/vdi/vdi_layout.h"
#include "formats/vdi/vdi_reader.h"

namespace underlay {
namespace vdi {
namespace {

// Bytes of a map that is checked at the opening: of a disk of 1 TiB in blocks of 1 MiB.
constexpr uint64_t kMaxMapToCheck = 4 << 20;

Result<Header> read_header(const Source& source) {
  if (source.size() < kHeaderBytes) {
    return fail(ErrorKind::kTruncated, "is no VDI, or was truncated: {} bytes, a header has {}",
                source.size(), kHeaderBytes);
  }
  std::array<std::byte, kHeaderBytes> bytes;
  TRY(source.read_at(0, bytes));
  return parse_header(bytes, source.size());
}

}  // namespace
}  // namespace vdi

ProbeResult probe_vdi(const ProbeInput& input) {
  switch (vdi::find_signs(input.head)) {
    case vdi::Signs::kSignature:
      return {.verdict = ProbeVerdict::kYes, .reason = ""};
    case vdi::Signs::kDamaged:
      return {.verdict = ProbeVerdict::kDamaged,
              .reason = "begins with its text, but the signature at byte 64 is wrong"};
    case vdi::Signs::kNone:
      break;
  }
  return {};
}

Result<std::unique_ptr<Reader>> open_vdi(const ImageToOpen& image) {
  const vdi::Header header = TRY(vdi::read_header(*image.source));
  auto reader = std::make_unique<vdi::VdiReader>(image.source, header, image.caches);
  if (header.map_bytes() <= vdi::kMaxMapToCheck) TRY(reader->check_map());
  return reader;
}

}  // namespace underlay
