#include "formats/utf16.h"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/test_bytes.h"

namespace underlay {
namespace {

using test::Bytes;
using test::units;

std::optional<std::string> little(std::initializer_list<uint16_t> list) {
  return utf16_to_utf8(units(list), ByteOrder::kLittle);
}

TEST_CASE("utf16: becomes UTF-8") {
  CHECK(little({}) == "");
  CHECK(little({'a', 0xe4, 0x20ac, 0xd83d, 0xdcbe}) == "a\u00e4\u20ac\U0001f4be");
  CHECK(little({0xd800, 0xdc00}) == "\U00010000");
  CHECK(little({0xdbff, 0xdfff}) == "\U0010ffff");
  CHECK(utf16_to_utf8(units({'b' << 8, 'i' << 8}), ByteOrder::kBig) == "bi");
}

TEST_CASE("utf16: NULs may end UTF-16, but not stand inside") {
  CHECK(little({'a', 0, 0}) == "a");
  CHECK(little({0}) == "");
  CHECK_FALSE(little({'a', 0, 'b'}));
  CHECK_FALSE(little({0, 'b'}));
}

TEST_CASE("utf16: what is no UTF-16 is no name") {
  CHECK_FALSE(utf16_to_utf8(Bytes(1, std::byte{'a'}), ByteOrder::kLittle));
  CHECK_FALSE(utf16_to_utf8(Bytes(3, std::byte{'a'}), ByteOrder::kLittle));
  CHECK_FALSE(little({0xd83d}));
  CHECK_FALSE(little({0xd83d, 'a'}));
  CHECK_FALSE(little({0xdcbe, 0xd83d}));
  CHECK_FALSE(little({0xd83d, 0}));
}

}  // namespace
}  // namespace underlay
