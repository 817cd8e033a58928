// A VHDX has megabytes, nearly all of them zeros, and checksums over what matters: neither is for a
// fuzzer. So its bytes are the pieces of an image, and checksums that they leave 0 are put in.
//
//   u16 size of the image, in units of 64 KiB
//   pieces: u32 offset, u16 length, bytes; behind the end of the input are zeros
#include <algorithm>

#include "formats/crc32c.h"
#include "formats/vhdx/vhdx_layout.h"
#include "fuzz/image_of_input.h"
#include "io/store_le.h"

namespace underlay {
namespace {

constexpr size_t kMaxUnits = 160;  // 10 MiB
constexpr size_t kLogAt = 1 << 20;
constexpr size_t kLogBytes = 1 << 20;
constexpr size_t kMaxEntryBytes = 64 << 10;

void seal(std::vector<std::byte>& image, size_t at, size_t length) {
  if (!range_within(at, length, image.size()) || load_le<uint32_t>(image, at + 4) != 0) return;
  const MutableByteSpan bytes = MutableByteSpan(image).subspan(at, length);
  store_le<uint32_t>(bytes, 4, crc32c_around(bytes, 4));
}

}  // namespace

std::vector<std::byte> image_of_input(ByteSpan input) {
  ByteReader reader(input);
  std::vector<std::byte> image(std::min<size_t>(reader.le<uint16_t>(), kMaxUnits) << 16);
  while (reader.remaining() > 6) {
    const size_t offset = reader.le<uint32_t>();
    const size_t length = std::min<size_t>(reader.le<uint16_t>(), reader.remaining());
    const ByteSpan piece = reader.bytes(length);
    if (!range_within(offset, length, image.size())) continue;
    std::copy(piece.begin(), piece.end(), image.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  for (const uint64_t at : vhdx::kHeadersAt) seal(image, at, vhdx::kHeaderBytes);
  for (const uint64_t at : vhdx::kRegionTablesAt) seal(image, at, vhdx::kRegionTableBytes);
  for (size_t at = kLogAt; at < kLogAt + kLogBytes && at + 4096 <= image.size(); at += 4096) {
    const ByteSpan entry = ByteSpan(image).subspan(at, 4096);
    const size_t length = load_le<uint32_t>(entry, 8);
    if (as_text(entry.first(4)) == "loge" && length >= 8 && length <= kMaxEntryBytes) {
      seal(image, at, length);
    }
  }
  return image;
}

}  // namespace underlay
