#include "formats/utf16.h"

namespace underlay {
namespace {

bool is_high_surrogate(char32_t unit) { return unit >= 0xd800 && unit < 0xdc00; }
bool is_low_surrogate(char32_t unit) { return unit >= 0xdc00 && unit < 0xe000; }

void append_utf8(std::string& text, char32_t code) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  const auto put_rest = [&](int shift) { put(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put_rest(0);
  } else if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put_rest(6);
    put_rest(0);
  } else {
    put(0xf0 | (code >> 18));
    put_rest(12);
    put_rest(6);
    put_rest(0);
  }
}

}  // namespace

char32_t utf16_unit(ByteSpan bytes, size_t index, ByteOrder order) {
  return order == ByteOrder::kBig ? load_be<uint16_t>(bytes, index * 2)
                                  : load_le<uint16_t>(bytes, index * 2);
}

std::optional<std::string> utf16_to_utf8(ByteSpan bytes, ByteOrder order) {
  if (bytes.size() % 2 != 0) return std::nullopt;
  size_t units = bytes.size() / 2;
  while (units > 0 && utf16_unit(bytes, units - 1, order) == 0) --units;
  std::string text;
  for (size_t i = 0; i < units; ++i) {
    char32_t code = utf16_unit(bytes, i, order);
    if (code == 0 || is_low_surrogate(code)) return std::nullopt;
    if (is_high_surrogate(code)) {
      const char32_t low = i + 1 < units ? utf16_unit(bytes, i + 1, order) : 0;
      if (!is_low_surrogate(low)) return std::nullopt;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      ++i;
    }
    append_utf8(text, code);
  }
  return text;
}

std::string utf16_field(ByteSpan bytes, ByteOrder order) {
  size_t units = 0;
  while (units < bytes.size() / 2 && utf16_unit(bytes, units, order) != 0) ++units;
  return utf16_to_utf8(bytes.first(units * 2), order).value_or("");
}

}  // namespace underlay
