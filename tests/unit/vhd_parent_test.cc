#include "formats/vhd/vhd_parent.h"

#include <doctest/doctest.h>

#include <functional>

#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/vhd_builder.h"

namespace underlay::vhd::test {
namespace {

using underlay::test::units;

using Names = std::vector<std::string>;

Bytes ascii(std::string_view text) { return Bytes(as_bytes(text).begin(), as_bytes(text).end()); }

vhd::DynamicHeader header_of(const Bytes& image) {
  Defects defects;
  const ByteSpan bytes = ByteSpan(image).subspan(VhdBuilder::kHeaderAt, vhd::kDynamicHeaderBytes);
  return vhd::parse_dynamic_header(bytes, defects).value();
}

// What an image of these locators and this name says of its parent.
struct Told {
  Result<Names> names;
  Names warnings;
};
Told told_by(VhdBuilder builder, const std::function<void(vhd::DynamicHeader&)>& change = nullptr) {
  builder.disk_type = 4;
  builder.current_size = 4096;
  const Bytes image = builder.build();
  auto header = header_of(image);
  if (change) change(header);
  const MemorySource source(image);
  Names warnings;
  const auto locators = vhd::read_locators(header, source, image.size()).value();
  auto names = vhd::parent_names(header, locators, ByteOrder::kBig, warnings);
  return {.names = std::move(names), .warnings = std::move(warnings)};
}

TEST_CASE("vhd names: file URLs, decoded and as they are") {
  CHECK(vhd::names_of_file_url("file:///a/b.vhd") == Names{"/a/b.vhd"});
  CHECK(vhd::names_of_file_url("file://localhost/a/b.vhd") == Names{"/a/b.vhd"});
  CHECK(vhd::names_of_file_url("file://./b.vhd") == Names{"b.vhd"});
  CHECK(vhd::names_of_file_url("file://./a%20b.vhd") == Names{"a%20b.vhd", "a b.vhd"});
  CHECK(vhd::names_of_file_url("100%") == Names{"100%"});
  CHECK(vhd::names_of_file_url("%2") == Names{"%2"});
  CHECK(vhd::names_of_file_url("a%zzb") == Names{"a%zzb"});
  CHECK(vhd::names_of_file_url("a%00b") == Names{"a%00b"});
  CHECK(vhd::names_of_file_url("file://") == Names{});
  CHECK(vhd::names_of_file_url(std::string_view("a\0b", 3)) == Names{});
}

TEST_CASE("vhd names: the header's name is UTF-16BE, or behind a byte order mark") {
  const auto name_of = [](const Bytes& bytes, ByteOrder unmarked = ByteOrder::kBig) {
    vhd::DynamicHeader header;
    std::copy(bytes.begin(), bytes.end(), header.parent_unicode_name.begin());
    return vhd::parent_unicode_name(header, unmarked);
  };
  CHECK(name_of({}) == "");
  CHECK(name_of(utf16be("b.vhd")) == "b.vhd");
  CHECK(name_of(units({0xfeff, 'b'})) == "b");
  CHECK(name_of(units({0xfffe, 'b' << 8})) == "b");
  CHECK(name_of(units({'b', '.'}), ByteOrder::kLittle) == "b.");  // tapdisk 0.1
  CHECK(name_of(units({0xfeff, 'b'}), ByteOrder::kLittle) == "b");
  CHECK(name_of(units({0xfffe, 'b' << 8}), ByteOrder::kLittle) == "b");
  CHECK(name_of(units({0x00d8})) == "");                         // half a surrogate
  CHECK(name_of(Bytes(512, std::byte{'A'})).size() == 256 * 3);  // no NUL at all
}

TEST_CASE("vhd names: relative before absolute before URL before the header's, each once") {
  VhdBuilder builder;
  builder.locators = {{"MacX", ascii("file:///u")},     {"Wi2k", ascii("C:\\old-abs.vhd")},
                      {"W2ku", utf16le("C:\\abs.vhd")}, {"Wi2r", ascii(".\\old-rel.vhd")},
                      {"W2ru", utf16le(".\\rel.vhd")},  {"W2ru", utf16le("rel.vhd")}};
  builder.parent_unicode_name = utf16be("abs.vhd");
  const Told told = told_by(builder);
  CHECK(told.names.value() == Names{"rel.vhd", "old-rel.vhd", "abs.vhd", "old-abs.vhd", "/u"});
  CHECK(told.warnings.empty());
}

TEST_CASE("vhd names: the deprecated codes' paths are 8-bit text or UTF-16") {
  for (const char* code : {"Wi2r", "Wi2k"}) {
    VhdBuilder builder;
    builder.locators = {{code, ascii(std::string_view("a.vhd\0\0", 7))}};
    CHECK(told_by(builder).names.value() == Names{"a.vhd"});
    builder.locators = {{code, utf16le("a.vhd")}};
    CHECK(told_by(builder).names.value() == Names{"a.vhd"});
  }
}

TEST_CASE("vhd names: an alias and an unknown code are skipped by name") {
  for (const std::string code : {"Mac ", "Zzzz"}) {
    VhdBuilder builder;
    builder.locators = {{code, pattern(100, 1)}, {"W2ru", utf16le("rel.vhd")}};
    const Told told = told_by(builder);
    CHECK(told.names.value() == Names{"rel.vhd"});
    REQUIRE(told.warnings.size() == 1);
    CHECK(told.warnings[0].find('"' + code + '"') != std::string::npos);
  }
}

TEST_CASE("vhd names: data_space may be sectors, bytes, or not stated, but not too small") {
  VhdBuilder builder;
  const auto names = [&](size_t units, uint32_t data_space) {
    builder.locators = {{"W2ru", utf16le(std::string(units, 'a')), data_space}};
    return told_by(builder).names.value().size();
  };
  CHECK(names(20, 1) == 1);
  CHECK(names(20, 512) == 1);
  CHECK(names(20, 0) == 1);
  CHECK(names(300, 2) == 1);
  CHECK(names(300, 1024) == 1);
  CHECK(names(300, 1) == 0);
  CHECK(names(300, 512) == 0);
}

TEST_CASE("vhd names: a locator that cannot be used is skipped, and told") {
  VhdBuilder builder;
  builder.locators = {{"W2ru", utf16le("rel.vhd")}};
  builder.parent_unicode_name = utf16be("b.vhd");
  const auto skipped = [&](const std::function<void(vhd::ParentLocator&)>& change) {
    const Told told =
        told_by(builder, [&](vhd::DynamicHeader& header) { change(header.locators[0]); });
    CHECK(told.names.value() == Names{"b.vhd"});
    CHECK(told.warnings.size() == 1);
  };
  skipped([](auto& locator) { locator.data_length = 0; });
  skipped([](auto& locator) { locator.data_length = 3; });  // an odd length
  skipped([](auto& locator) { locator.data_length = 0xffffffff; });
  skipped([](auto& locator) { locator.data_length = vhd::kMaxLocatorBytes + 2; });
  skipped([](auto& locator) { locator.data_offset = uint64_t{1} << 40; });
  skipped([](auto& locator) { locator.data_offset = ~uint64_t{0}; });
  skipped([](auto& locator) { locator.data_offset = ~uint64_t{0} - 13; });  // wraps to 0
}

TEST_CASE("vhd names: a locator is read up to its limit, and no longer one") {
  VhdBuilder builder;
  builder.locators = {{"W2ru", utf16le("rel.vhd")}};
  builder.parent_unicode_name = utf16be("b.vhd");
  builder.locators[0].data.resize(vhd::kMaxLocatorBytes);  // NULs end the name
  CHECK(told_by(builder).names.value() == Names{"rel.vhd", "b.vhd"});
  builder.locators[0].data.resize(vhd::kMaxLocatorBytes + 2);
  CHECK(told_by(builder).names.value() == Names{"b.vhd"});
}

TEST_CASE("vhd names: an image that names no parent has no names: the operator may") {
  const Told told = told_by(VhdBuilder{});
  CHECK(told.names.value().empty());
  CHECK(told.warnings.empty());
}

TEST_CASE("vhd names: a locator that cannot be read is a failure, not another name") {
  VhdBuilder builder;
  builder.disk_type = 4;
  builder.current_size = 4096;
  builder.locators = {{"W2ru", utf16le("rel.vhd")}};
  builder.parent_unicode_name = utf16be("b.vhd");
  const Bytes image = builder.build();
  const auto header = header_of(image);
  FaultySource source(std::make_shared<MemorySource>(image));
  source.fail_read(0);
  const auto locators = vhd::read_locators(header, source, image.size());
  REQUIRE_FALSE(locators);
  CHECK(locators.error().kind == ErrorKind::kIo);
}

}  // namespace
}  // namespace underlay::vhd::test
