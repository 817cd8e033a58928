#include "formats/guid.h"

#include <algorithm>

#include "io/error.h"
#include "io/hex_digit.h"

namespace underlay {
namespace {

// Where the byte lies in the file that the text's i-th pair of digits shows.
constexpr size_t place_of(size_t i, GuidOrder order) {
  constexpr std::array<size_t, 16> kLittleEndian = {3, 2, 1,  0,  5,  4,  7,  6,
                                                    8, 9, 10, 11, 12, 13, 14, 15};
  return order == GuidOrder::kLittleEndian ? kLittleEndian[i] : i;
}

constexpr bool dash_before(size_t i) { return i == 4 || i == 6 || i == 8 || i == 10; }

}  // namespace

Guid guid_at(ByteSpan bytes, size_t offset) {
  Guid guid;
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), guid.size(), guid.begin());
  return guid;
}

std::string to_text(const Guid& guid, GuidOrder order) {
  std::string text;
  for (size_t i = 0; i < guid.size(); ++i) {
    if (dash_before(i)) text += '-';
    text += fmt::format("{:02x}", std::to_integer<unsigned>(guid[place_of(i, order)]));
  }
  return text;
}

std::optional<Guid> parse_guid(std::string_view text, GuidOrder order) {
  if (text.starts_with('{') && text.ends_with('}')) text = text.substr(1, text.size() - 2);
  if (text.size() != 36) return std::nullopt;
  Guid guid{};
  size_t at = 0;
  for (size_t i = 0; i < guid.size(); ++i) {
    if (dash_before(i) && text[at++] != '-') return std::nullopt;
    const int high = hex_digit(text[at]);
    const int low = hex_digit(text[at + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    guid[place_of(i, order)] = static_cast<std::byte>(high * 16 + low);
    at += 2;
  }
  return guid;
}

}  // namespace underlay
