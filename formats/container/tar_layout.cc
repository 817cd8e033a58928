#include "formats/container/tar_layout.h"

#include <charconv>

namespace underlay::tar {
namespace {

constexpr size_t kNameBytes = 100;
constexpr size_t kSizeAt = 124;
constexpr size_t kSizeBytes = 12;
constexpr size_t kChecksumAt = 148;
constexpr size_t kChecksumBytes = 8;
constexpr size_t kTypeAt = 156;
constexpr size_t kMagicAt = 257;
constexpr std::string_view kPosixMagic{"ustar\0", 6};
constexpr std::string_view kMagic = "ustar";  // GNU: a space behind it
constexpr size_t kPrefixAt = 345;
constexpr size_t kPrefixBytes = 155;

std::string_view text_at(ByteSpan bytes, size_t offset, size_t length) {
  const std::string_view field = as_text(bytes.subspan(offset, length));
  return field.substr(0, field.find('\0'));
}

std::optional<uint64_t> parse_octal(std::string_view field) {
  const auto first = field.find_first_not_of(' ');
  if (first == std::string_view::npos) return std::nullopt;
  field.remove_prefix(first);
  field = field.substr(0, field.find_first_of(std::string_view(" \0", 2)));
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value, 8);
  if (error != std::errc() || end != field.data() + field.size()) return std::nullopt;
  return value;
}

// nullopt: no number, a negative one, or one that 64 bits do not hold.
std::optional<uint64_t> parse_number(ByteSpan field) {
  if (field[0] != std::byte{0x80}) return parse_octal(as_text(field));
  const size_t high = field.size() - 8;
  if (!is_zero(field.subspan(1, high - 1))) return std::nullopt;
  return load_be<uint64_t>(field, high);
}

bool checksum_holds(ByteSpan bytes) {
  const auto stored = parse_number(bytes.subspan(kChecksumAt, kChecksumBytes));
  int64_t sum = 0;
  int64_t signed_sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool own = i >= kChecksumAt && i < kChecksumAt + kChecksumBytes;
    const auto byte = own ? uint8_t{' '} : std::to_integer<uint8_t>(bytes[i]);
    sum += byte;
    signed_sum += static_cast<int8_t>(byte);
  }
  return stored &&
         (*stored == static_cast<uint64_t>(sum) || *stored == static_cast<uint64_t>(signed_sum));
}

std::string name_of(ByteSpan bytes) {
  std::string name(text_at(bytes, 0, kNameBytes));
  if (as_text(bytes.subspan(kMagicAt, kPosixMagic.size())) != kPosixMagic) return name;
  const std::string_view prefix = text_at(bytes, kPrefixAt, kPrefixBytes);
  return prefix.empty() ? name : std::string(prefix) + "/" + name;
}

Result<void> take_record(std::string_view key, std::string_view value, Extended& extended) {
  if (key == "path") extended.path = value;
  if (key.starts_with("GNU.sparse.") || key == "SCHILY.realsize") extended.sparse = true;
  if (key == "size") {
    uint64_t size = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
    if (error != std::errc() || end != value.data() + value.size()) {
      return fail(ErrorKind::kMalformed, "a pax record has the size \"{}\"", printable(value, 40));
    }
    extended.size = size;
  }
  return {};
}

}  // namespace

bool is_first_header(ByteSpan head) {
  return head.size() >= kRecordBytes && as_text(head.subspan(kMagicAt, kMagic.size())) == kMagic &&
         checksum_holds(head.first(kRecordBytes));
}

Result<std::optional<Header>> parse_header(ByteSpan bytes) {
  if (is_zero(bytes)) return std::optional<Header>();
  if (!checksum_holds(bytes)) {
    return fail(ErrorKind::kMalformed,
                "a tar header has a wrong checksum: the archive is damaged or truncated");
  }
  const auto size = parse_number(bytes.subspan(kSizeAt, kSizeBytes));
  if (!size) {
    return fail(ErrorKind::kMalformed, "a tar header has a size that is no number of bytes");
  }
  return std::optional<Header>(
      Header{.name = name_of(bytes), .size = *size, .typeflag = static_cast<char>(bytes[kTypeAt])});
}

Result<void> parse_pax_records(ByteSpan bytes, Extended& extended) {
  std::string_view rest = as_text(bytes);
  while (!rest.empty()) {
    size_t length = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), length);
    const auto digits = static_cast<size_t>(end - rest.data());
    const bool fits = error == std::errc() && length <= rest.size() && length > digits + 1 &&
                      rest[digits] == ' ' && rest[length - 1] == '\n';
    if (!fits) return fail(ErrorKind::kMalformed, "a pax header has a record of a wrong length");
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) {
      return fail(ErrorKind::kMalformed, "a pax header has a record without \"=\"");
    }
    TRY(take_record(record.substr(0, equals), record.substr(equals + 1), extended));
    rest.remove_prefix(length);
  }
  return {};
}

}  // namespace underlay::tar
