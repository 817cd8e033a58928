#include "formats/vhdx/vhdx_parent.h"

#include <doctest/doctest.h>

#include "tests/support/vhdx_builder.h"

namespace underlay::vhdx::test {
namespace {

using Names = std::vector<std::string>;
using Values = std::vector<std::pair<std::string, std::string>>;

constexpr const char* kLinkage = "{01234567-89AB-cdef-0123-456789abcdef}";

struct Told {
  Result<ParentLink> link;
  Names warnings;
};
Told told_by(const Bytes& locator) {
  Names warnings;
  auto link = parse_parent_locator(locator, 512, warnings);
  return {.link = std::move(link), .warnings = std::move(warnings)};
}
ErrorKind refusal(const Bytes& locator) {
  const Told told = told_by(locator);
  return told.link ? ErrorKind::kUsage : told.link.error().kind;
}

TEST_CASE("vhdx locator: paths in the order of the specification, each once") {
  const Told told = told_by(parent_locator(
      {{"absolute_win32_path", "\\\\?\\d:\\a\\b.vhdx"},
       {"volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\a\\v.vhdx"},
       {"parent_linkage", kLinkage},
       {"something_else", "x"},
       {"relative_path", "..\\p\\b.vhdx"}}));
  const ParentLink& link = told.link.value();
  CHECK(link.names == Names{"../p/b.vhdx", "v.vhdx", "b.vhdx"});
  CHECK(link.format == "vhdx");
  CHECK(link.identity == "01234567-89ab-cdef-0123-456789abcdef with sectors of 512 bytes");
  CHECK(link.other_identity == "");
  CHECK(told.warnings.empty());
}

TEST_CASE("vhdx locator: without a path the operator must say where the parent lies") {
  CHECK(told_by(parent_locator({{"parent_linkage", kLinkage}})).link.value().names.empty());
}

TEST_CASE("vhdx locator: a path that is no text is skipped, and told") {
  Bytes locator = parent_locator({{"parent_linkage", kLinkage}, {"relative_path", "ab"}});
  store_le<uint16_t>(locator, locator.size() - 2, 0xd800);
  const Told told = told_by(locator);
  CHECK(told.link.value().names.empty());
  CHECK(told.warnings.size() == 1);
}

TEST_CASE("vhdx locator: a linkage that is missing or no GUID is refused") {
  CHECK(refusal(parent_locator({{"relative_path", "b"}})) == ErrorKind::kMalformed);
  CHECK(refusal(parent_locator({{"parent_linkage", "b"}})) == ErrorKind::kMalformed);
  CHECK(refusal(parent_locator({{"parent_linkage", kLinkage}, {"parent_linkage2", ""}})) ==
        ErrorKind::kMalformed);
}

TEST_CASE("vhdx locator: one of another type is refused") {
  Bytes locator = parent_locator({{"parent_linkage", kLinkage}});
  locator[3] ^= std::byte{1};
  CHECK(refusal(locator) == ErrorKind::kUnsupported);
}

TEST_CASE("vhdx locator: what reaches beyond its end, or above a budget, is refused") {
  const Bytes whole = parent_locator({{"parent_linkage", kLinkage}, {"relative_path", "b"}});
  const auto with = [&](size_t at, auto value) {
    Bytes locator = whole;
    store_le<decltype(value)>(locator, at, value);
    return refusal(locator);
  };
  CHECK(with(18, uint16_t{kMaxKeyValues + 1}) == ErrorKind::kLimit);  // KeyValueCount
  CHECK(with(18, uint16_t{kMaxKeyValues}) == ErrorKind::kMalformed);
  CHECK(with(20, ~uint32_t{0}) == ErrorKind::kMalformed);      // KeyOffset
  CHECK(with(24, ~uint32_t{0}) == ErrorKind::kMalformed);      // ValueOffset
  CHECK(with(28, uint16_t{0xffff}) == ErrorKind::kMalformed);  // KeyLength
  CHECK(with(28, uint16_t{3}) == ErrorKind::kMalformed);
  CHECK(with(30, uint16_t{0xffff}) == ErrorKind::kMalformed);  // ValueLength
  CHECK(refusal(parent_locator({{"parent_linkage", kLinkage}, {"parent_linkage", kLinkage}})) ==
        ErrorKind::kMalformed);
  CHECK(refusal(parent_locator(
            {{"parent_linkage", kLinkage}, {"x", std::string(kMaxValueBytes / 2, 'x')}})) ==
        ErrorKind::kUsage);
  CHECK(refusal(parent_locator(
            {{"parent_linkage", kLinkage}, {"x", std::string(kMaxValueBytes / 2 + 1, 'x')}})) ==
        ErrorKind::kLimit);
  CHECK(refusal(Bytes(whole.begin(), whole.begin() + kLocatorHeaderBytes)) ==
        ErrorKind::kMalformed);
}

}  // namespace
}  // namespace underlay::vhdx::test
