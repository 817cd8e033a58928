#include "formats/text_encoding.h"

#include <doctest/doctest.h>

namespace underlay {
namespace {

TEST_CASE(
    "text encoding: text of every known encoding becomes UTF-8, whatever the case of its name") {
  const auto converted = [](std::string_view text, std::string_view encoding) {
    return to_utf8(text, encoding).value_or("refused");
  };
  CHECK(converted("\xe4\x80", "windows-1252") == "\xc3\xa4\xe2\x82\xac");
  CHECK(converted("\xe4", "WINDOWS-1252") == "\xc3\xa4");
  CHECK(converted("\xc4", "windows-1251") == "\xd0\x94");
  CHECK(converted("\x95\x5c", "Shift_JIS") == "\xe8\xa1\xa8");
  CHECK(converted("\x87\x40", "Shift_JIS") == "\xe2\x91\xa0");  // Microsoft's, not in JIS
  CHECK(converted("\xb4\xc5", "GBK") == "\xe7\xa3\x81");
  CHECK(converted("\xc5\xcc", "GB2312") == "\xe7\x9b\x98");
  CHECK(converted("\xba\xcf", "Big5") == "\xe7\xa3\x81");
  CHECK(converted("\xb5\xf0", "EUC-KR") == "\xeb\x94\x94");
  CHECK(converted("a\xc3\xa4", "UTF-8") == "a\xc3\xa4");
  CHECK(converted("", "GBK").empty());
  CHECK(converted("a\xcc", "windows-1258") == "\xc3\xa0");  // the accent follows its letter
}

TEST_CASE("text encoding: text that is not in its encoding is refused") {
  for (const char* encoding : {"UTF-8", "GBK", "Shift_JIS", "EUC-KR", "US-ASCII"}) {
    CAPTURE(encoding);
    const auto refused = to_utf8("\xff\xff", encoding);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::kMalformed);
  }
  CHECK_FALSE(to_utf8("\x95", "Shift_JIS"));  // half a character
}

TEST_CASE("text encoding: only names of the list reach the C library") {
  for (const char* encoding :
       {"", "UTF-16", "UTF-7", "ISO-2022-CN-EXT", "UTF-8//TRANSLIT", "../../../tmp/evil", "GBK "}) {
    CAPTURE(encoding);
    const auto refused = to_utf8("a", encoding);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::kUnsupported);
  }
}

TEST_CASE("text encoding: ASCII is below 128") {
  CHECK(is_ascii(""));
  CHECK(is_ascii("a\x7f"));
  CHECK_FALSE(is_ascii("a\x80"));
}

TEST_CASE("text encoding: UTF-8 becomes UTF-16 in either order, when it is UTF-8") {
  const auto converted = [](std::string_view text, ByteOrder order) {
    return std::string(as_text(utf8_to_utf16(text, order).value()));
  };
  using namespace std::string_literals;
  CHECK(converted("a\xc3\xa4", ByteOrder::kBig) == "\0a\0\xe4"s);
  CHECK(converted("a\xc3\xa4", ByteOrder::kLittle) == "a\0\xe4\0"s);
  CHECK(converted("\xf0\x9f\x98\x80", ByteOrder::kBig) == "\xd8\x3d\xde\0"s);
  CHECK(converted("", ByteOrder::kBig).empty());
  for (const char* text : {"\xff", "\xc3", "\xed\xa0\x80"}) {
    CHECK(utf8_to_utf16(text, ByteOrder::kBig).error().kind == ErrorKind::kMalformed);
  }
}

}  // namespace
}  // namespace underlay
