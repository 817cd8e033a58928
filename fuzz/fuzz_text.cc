// Any bytes as text of an image: UTF-16, another encoding, a Windows path, a GUID. The first byte
// chooses the encoding. What comes out is what images' names are: it must keep the contracts of
// formats/text_encoding.h, utf16.h, windows_path.h and guid.h. Aborts when it does not.
#include <array>

#include "formats/guid.h"
#include "formats/text_encoding.h"
#include "formats/utf16.h"
#include "formats/windows_path.h"
#include "fuzz/rules.h"

namespace underlay {
namespace {

constexpr std::array<std::string_view, 8> kEncodings = {
    "UTF-8", "windows-1252", "Shift_JIS", "windows-932", "GBK", "Big5", "ISO-8859-15", "UTF-16LE"};

void check_windows_path(std::string_view text) {
  const std::string name = name_of_windows_path(text);
  require(name.find('\\') == std::string::npos, "a name has slashes");
  require(name.size() <= text.size(), "a name is a part of its path");
}

void check_guid(ByteSpan bytes) {
  if (bytes.size() < sizeof(Guid)) return;
  const Guid guid = guid_at(bytes, 0);
  for (const GuidOrder order : {GuidOrder::kLittleEndian, GuidOrder::kBigEndian}) {
    const std::string text = to_text(guid, order);
    require(parse_guid(text, order) == guid, "a GUID's text means it");
    require(parse_guid("{" + text + "}", order) == guid, "braces make no difference");
  }
}

void run(ByteSpan bytes) {
  if (bytes.empty()) return;
  load_text_encodings();
  const std::string_view encoding =
      kEncodings[std::to_integer<size_t>(bytes[0]) % kEncodings.size()];
  bytes = bytes.subspan(1);
  const std::string_view text = as_text(bytes);
  for (const ByteOrder order : {ByteOrder::kLittle, ByteOrder::kBig}) {
    const auto utf8 = utf16_to_utf8(bytes, order);
    if (!utf8) continue;
    require(utf8->find('\0') == std::string::npos, "text has no NUL");
    require(to_utf8(*utf8, "UTF-8") == *utf8, "what comes of UTF-16 is UTF-8");
  }
  const auto utf8 = to_utf8(text, encoding);
  if (!utf8) check_error(utf8.error());
  if (utf8) require(to_utf8(*utf8, "UTF-8") == *utf8, "what comes of an encoding is UTF-8");
  check_windows_path(text);
  check_guid(bytes);
  for (const GuidOrder order : {GuidOrder::kLittleEndian, GuidOrder::kBigEndian}) {
    const auto guid = parse_guid(text, order);
    if (guid) require(parse_guid(to_text(*guid, order), order) == guid, "a GUID has one meaning");
  }
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
