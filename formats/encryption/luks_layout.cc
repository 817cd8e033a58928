#include "formats/encryption/luks_layout.h"

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
constexpr size_t kUuidBytes = 40;

std::string_view text_at(ByteSpan container, size_t offset, size_t length = kTextBytes) {
  const std::string_view field = as_text(container.subspan(offset, length));
  return field.substr(0, field.find('\0'));
}

LuksKeySlot load_slot(ByteSpan container, size_t number) {
  const ByteSpan bytes = container.subspan(kFirstSlot + number * kSlotBytes, kSlotBytes);
  return {.active = load_be<uint32_t>(bytes, 0) == kActive,
          .iterations = load_be<uint32_t>(bytes, 4),
          .material_sector = load_be<uint32_t>(bytes, 40),
          .stripes = load_be<uint32_t>(bytes, 44)};
}

Result<void> check_slot(const LuksKeySlot& slot, size_t number, uint32_t key_bytes,
                        uint64_t container_bytes) {
  if (!slot.active) return {};
  if (slot.iterations == 0 || slot.iterations > LuksHeader::kMaxIterations) {
    return fail(ErrorKind::kLimit, "LUKS key slot {}: iterations is {}: must be 1 to {}", number,
                slot.iterations, LuksHeader::kMaxIterations);
  }
  if (slot.stripes != LuksHeader::kStripes) {
    return fail(ErrorKind::kMalformed, "LUKS key slot {}: stripes is {}: must be {}", number,
                slot.stripes, LuksHeader::kStripes);
  }
  const uint64_t offset = slot.material_sector * kSectorBytes;
  if (offset < LuksHeader::kBytes ||
      !range_within(offset, uint64_t{key_bytes} * slot.stripes, container_bytes)) {
    return fail(ErrorKind::kMalformed,
                "LUKS key slot {}: key-material-offset is {} sectors: its key material must lie "
                "behind the header and within the {} bytes of it",
                number, slot.material_sector, container_bytes);
  }
  return {};
}

}  // namespace

Result<LuksFields> load_luks_header(ByteSpan container) {
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
  LuksFields fields{.cipher_name = text_at(container, 8),
                    .cipher_mode = text_at(container, 40),
                    .hash_spec = text_at(container, 72),
                    .uuid = text_at(container, 168, kUuidBytes),
                    .payload_sector = load_be<uint32_t>(container, 104),
                    .key_bytes = load_be<uint32_t>(container, 108),
                    .digest_iterations = load_be<uint32_t>(container, 164),
                    .slots = {}};
  for (size_t i = 0; i < fields.slots.size(); ++i) fields.slots[i] = load_slot(container, i);
  return fields;
}

Result<LuksHeader> parse_luks_header(ByteSpan container) {
  const LuksFields fields = TRY(load_luks_header(container));
  LuksHeader header;
  header.key_bytes = fields.key_bytes;
  header.cipher = TRY(parse_cipher_spec(fields.cipher_name, fields.cipher_mode, fields.key_bytes));
  if (fields.digest_iterations == 0 || fields.digest_iterations > LuksHeader::kMaxIterations) {
    return fail(ErrorKind::kLimit, "LUKS mk-digest-iter is {}: must be 1 to {}",
                fields.digest_iterations, LuksHeader::kMaxIterations);
  }
  for (size_t i = 0; i < fields.slots.size(); ++i) {
    TRY(check_slot(fields.slots[i], i, fields.key_bytes, container.size()));
  }
  return header;
}

}  // namespace underlay
