#include "formats/luks_layout.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr std::array kMagic = {std::byte{'L'}, std::byte{'U'},  std::byte{'K'},
                               std::byte{'S'}, std::byte{0xba}, std::byte{0xbe}};
constexpr size_t kFirstSlot = 208;
constexpr size_t kSlotBytes = 48;
constexpr uint32_t kActive = 0x00ac71f3;
constexpr uint64_t kSectorBytes = 512;
constexpr size_t kTextBytes = 32;

std::string_view text_at(ByteSpan container, size_t offset) {
  const std::string_view field = as_text(container.subspan(offset, kTextBytes));
  return field.substr(0, field.find('\0'));
}

Result<void> check_slot(ByteSpan container, size_t number, uint32_t key_bytes) {
  const ByteSpan slot = container.subspan(kFirstSlot + number * kSlotBytes, kSlotBytes);
  if (load_be<uint32_t>(slot, 0) != kActive) return {};
  const auto iterations = load_be<uint32_t>(slot, 4);
  const auto material = load_be<uint32_t>(slot, 40);
  const auto stripes = load_be<uint32_t>(slot, 44);
  if (iterations == 0 || iterations > LuksHeader::kMaxIterations) {
    return fail(ErrorKind::kLimit, "LUKS key slot {}: iterations is {}: must be 1 to {}", number,
                iterations, LuksHeader::kMaxIterations);
  }
  if (stripes != LuksHeader::kStripes) {
    return fail(ErrorKind::kMalformed, "LUKS key slot {}: stripes is {}: must be {}", number,
                stripes, LuksHeader::kStripes);
  }
  const uint64_t offset = material * kSectorBytes;
  if (offset < LuksHeader::kBytes ||
      !range_within(offset, uint64_t{key_bytes} * stripes, container.size())) {
    return fail(ErrorKind::kMalformed,
                "LUKS key slot {}: key-material-offset is {} sectors: its key material must lie "
                "behind the header and within the {} bytes of it",
                number, material, container.size());
  }
  return {};
}

}  // namespace

Result<LuksHeader> parse_luks_header(ByteSpan container) {
  if (container.size() < LuksHeader::kBytes) {
    return fail(ErrorKind::kMalformed, "the LUKS header has {} bytes: must have {} or more",
                container.size(), LuksHeader::kBytes);
  }
  if (!std::equal(kMagic.begin(), kMagic.end(), container.begin())) {
    return fail(ErrorKind::kMalformed, "no LUKS header lies where the image says (magic)");
  }
  const auto version = load_be<uint16_t>(container, 6);
  if (version != 1) {
    return fail(ErrorKind::kUnsupported, "the LUKS header has version {}: only 1 is served",
                version);
  }
  LuksHeader header;
  header.key_bytes = load_be<uint32_t>(container, 108);
  header.cipher =
      TRY(parse_cipher_spec(text_at(container, 8), text_at(container, 40), header.key_bytes));
  const auto digest_iterations = load_be<uint32_t>(container, 164);
  if (digest_iterations == 0 || digest_iterations > LuksHeader::kMaxIterations) {
    return fail(ErrorKind::kLimit, "LUKS mk-digest-iter is {}: must be 1 to {}", digest_iterations,
                LuksHeader::kMaxIterations);
  }
  for (size_t i = 0; i < LuksHeader::kSlots; ++i) TRY(check_slot(container, i, header.key_bytes));
  return header;
}

}  // namespace underlay
