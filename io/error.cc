#include "io/error.h"

#include <cstring>

namespace underlay {
namespace {

// Length of the valid UTF-8 sequence at the start of `text`, 0 when there is none. Rejects what RFC
// 3629 section 3 rejects: overlong forms, surrogates, values past U+10FFFF.
size_t utf8_sequence(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  return length;
}

// U+0080 to U+009F: terminals treat them as control bytes.
bool is_c1_control(std::string_view sequence) {
  return sequence.size() == 2 && static_cast<unsigned char>(sequence[0]) == 0xc2 &&
         static_cast<unsigned char>(sequence[1]) < 0xa0;
}

// U+202A to U+202E, and U+2066 to U+2069: they make what stands beside them be shown in another
// order (Unicode Standard Annex 9, section 2).
bool is_bidi_control(std::string_view sequence) {
  if (sequence.size() != 3 || !sequence.starts_with("\xe2")) return false;
  const auto second = static_cast<unsigned char>(sequence[1]);
  const auto third = static_cast<unsigned char>(sequence[2]);
  return (second == 0x80 && third >= 0xaa && third <= 0xae) ||
         (second == 0x81 && third >= 0xa6 && third <= 0xa9);
}

}  // namespace

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  size_t at = 0;
  while (at < text.size()) {
    if (out.size() >= max_bytes) return out + "...";
    const size_t length = utf8_sequence(text.substr(at));
    const auto byte = static_cast<unsigned char>(text[at]);
    const std::string_view sequence = text.substr(at, length);
    if (length == 0 || byte < 0x20 || byte == 0x7f || is_c1_control(sequence) ||
        is_bidi_control(sequence)) {
      out += fmt::format("\\x{:02x}", byte);
      at += 1;
    } else {
      out += sequence;
      at += length;
    }
  }
  return out;
}

std::string Error::to_string() const {
  std::string line;
  if (!file.empty()) line += file + ": ";
  line += message;
  if (offset) line += fmt::format(" (at byte {})", *offset);
  if (sys_errno != 0) line += fmt::format(": {}", strerror(sys_errno));
  return printable(line);
}

Failure with_context(Error error, std::string_view context) {
  error.message.insert(0, context);
  return Failure(std::move(error));
}

Failure in_file(Error error, std::string_view file, std::optional<uint64_t> offset) {
  if (error.file.empty()) {
    error.file = file;
    if (!error.offset) error.offset = offset;
  }
  return Failure(std::move(error));
}

}  // namespace underlay
