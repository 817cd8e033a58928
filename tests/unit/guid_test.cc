#include "formats/guid.h"

#include <doctest/doctest.h>

namespace underlay {
namespace {

constexpr std::string_view kText = "01234567-89ab-cdef-0123-456789abcdef";

}  // namespace

TEST_CASE(
    "guid: in one order its first three fields are little-endian, in the other all lies as in the "
    "text") {
  const Guid little = parse_guid(kText, GuidOrder::kLittleEndian).value();
  CHECK(little[0] == std::byte{0x67});
  CHECK(little[4] == std::byte{0xab});
  CHECK(little[6] == std::byte{0xef});
  CHECK(little[8] == std::byte{0x01});
  const Guid big = parse_guid(kText, GuidOrder::kBigEndian).value();
  CHECK(big[0] == std::byte{0x01});
  CHECK(big[6] == std::byte{0xcd});
  CHECK(big[15] == std::byte{0xef});
  CHECK(to_text(little, GuidOrder::kLittleEndian) == kText);
  CHECK(to_text(big, GuidOrder::kBigEndian) == kText);
  CHECK(to_text(big, GuidOrder::kLittleEndian) == "67452301-ab89-efcd-0123-456789abcdef");
}

TEST_CASE("guid: its text has any case, and braces or none; all else is no guid") {
  const auto parse = [](std::string_view text) { return parse_guid(text, GuidOrder::kBigEndian); };
  CHECK(parse("{01234567-89AB-CDEF-0123-456789ABCDEF}") == parse(kText));
  CHECK(is_null(parse("00000000-0000-0000-0000-000000000000").value()));
  CHECK_FALSE(is_null(parse(kText).value()));
  for (const char* text :
       {"", "{}", "{", "0123456789abcdef0123456789abcdef", "01234567-89ab-cdef-0123-456789abcde",
        "g1234567-89ab-cdef-0123-456789abcdef", "01234567x89ab-cdef-0123-456789abcdef",
        "01234567-89ab-cdef-0123-456789abcdef0"}) {
    CHECK_FALSE(parse(text));
  }
}

}  // namespace underlay
