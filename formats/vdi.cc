#include "formats/vdi.h"

#include "formats/vdi_layout.h"
#include "formats/vdi_reader.h"

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
  const Header header = TRY(parse_header(bytes));
  if (!range_within(header.offset_bmap, header.map_bytes(), source.size())) {
    return fail(ErrorKind::kTruncated,
                "the block map, {} entries from byte {} on, reaches beyond the end of the file, "
                "which has {} bytes: it is truncated or damaged",
                header.blocks_in_image, header.offset_bmap, source.size());
  }
  return header;
}

Result<void> check_type(const Header& header) {
  switch (header.image_type) {
    case kTypeDynamic:
    case kTypeStatic:
      if (is_null(header.uuid_link)) return {};
      return fail(ErrorKind::kMalformed,
                  "image_type {} has no parent, but uuid_link names one, {}: whether blocks that "
                  "were never written are zeros or the parent's is not known",
                  header.image_type, to_string(header.uuid_link));
    case kTypeDifferencing:
      if (!is_null(header.uuid_link)) return {};
      return fail(ErrorKind::kMalformed,
                  "is a differencing image, but uuid_link is null: its parent is not known");
    case kTypeUndo:
      return fail(
          ErrorKind::kUnsupported,
          "is an undo image (image_type {}), of which it is not specified what its blocks mean "
          "beside its parent's; serve the image that it belongs to",
          kTypeUndo);
    default:
      return fail(ErrorKind::kUnsupported,
                  "image_type {} is none of dynamic ({}), static ({}), differencing ({})",
                  header.image_type, kTypeDynamic, kTypeStatic, kTypeDifferencing);
  }
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
  TRY(vdi::check_type(header));
  auto reader = std::make_unique<vdi::VdiReader>(image.source, header, image.caches);
  if (header.map_bytes() <= vdi::kMaxMapToCheck) TRY(reader->check_map());
  return reader;
}

}  // namespace underlay
