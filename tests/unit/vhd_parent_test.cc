#include "formats/vhd_parent.h"

#include <doctest/doctest.h>

#include <functional>

#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/vhd_builder.h"

namespace underlay::vhd::test {
namespace {

using Names = std::vector<std::string>;

Bytes units(std::initializer_list<uint16_t> list) {
  Bytes bytes;
  for (const uint16_t unit : list) {
    bytes.push_back(static_cast<std::byte>(unit & 0xff));
    bytes.push_back(static_cast<std::byte>(unit >> 8));
  }
  return bytes;
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
  auto header = vhd::parse_dynamic_header(
                    ByteSpan(image).subspan(VhdBuilder::kHeaderAt, vhd::kDynamicHeaderBytes))
                    .value();
  if (change) change(header);
  const MemorySource source(image);
  Names warnings;
  auto names = vhd::parent_names(header, source, image.size(), warnings);
  return {.names = std::move(names), .warnings = std::move(warnings)};
}

TEST_CASE("vhd names: file URLs, decoded and as they are") {
  CHECK(vhd::names_of_file_url("file:///a/b.vhd") == Names{"/a/b.vhd"});
  CHECK(vhd::names_of_file_url("file://localhost/a/b.vhd") == Names{"/a/b.vhd"});
  CHECK(vhd::names_of_file_url("file://./b.vhd") == Names{"b.vhd"});
  CHECK(vhd::names_of_file_url("file://./a%20b.vhd") == Names{"a b.vhd", "a%20b.vhd"});
  CHECK(vhd::names_of_file_url("100%") == Names{"100%"});
  CHECK(vhd::names_of_file_url("%2") == Names{"%2"});
  CHECK(vhd::names_of_file_url("a%zzb") == Names{"a%zzb"});
  CHECK(vhd::names_of_file_url("a%00b") == Names{"a%00b"});
  CHECK(vhd::names_of_file_url("file://") == Names{});
  CHECK(vhd::names_of_file_url(std::string_view("a\0b", 3)) == Names{});
}

TEST_CASE("vhd names: the header's name is UTF-16BE, or behind a byte order mark") {
  const auto name_of = [](const Bytes& bytes) {
    vhd::DynamicHeader header;
    std::copy(bytes.begin(), bytes.end(), header.parent_unicode_name.begin());
    return vhd::parent_unicode_name(header);
  };
  CHECK(name_of({}) == "");
  CHECK(name_of(utf16be("b.vhd")) == "b.vhd");
  CHECK(name_of(units({0xfeff, 'b'})) == "b");
  CHECK(name_of(units({0xfffe, 'b' << 8})) == "b");
  CHECK(name_of(units({0x00d8})) == "");                         // half a surrogate
  CHECK(name_of(Bytes(512, std::byte{'A'})).size() == 256 * 3);  // no NUL at all
}

TEST_CASE("vhd names: relative before absolute before URL before the header's, each once") {
  VhdBuilder builder;
  builder.locators = {{"MacX", Bytes(as_bytes("file:///u").begin(), as_bytes("file:///u").end())},
                      {"W2ku", utf16le("C:\\abs.vhd")},
                      {"Wi2r", utf16le("deprecated")},
                      {"W2ru", utf16le(".\\rel.vhd")},
                      {"W2ru", utf16le("rel.vhd")}};
  builder.parent_unicode_name = utf16be("abs.vhd");
  const Told told = told_by(builder);
  CHECK(told.names.value() == Names{"rel.vhd", "abs.vhd", "/u"});
  CHECK(told.warnings.empty());
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

TEST_CASE("vhd names: an image that names no parent is refused") {
  const Told told = told_by(VhdBuilder{});
  REQUIRE_FALSE(told.names);
  CHECK(told.names.error().kind == ErrorKind::kMalformed);
}

TEST_CASE("vhd names: a locator that cannot be read is a failure, not another name") {
  VhdBuilder builder;
  builder.disk_type = 4;
  builder.current_size = 4096;
  builder.locators = {{"W2ru", utf16le("rel.vhd")}};
  builder.parent_unicode_name = utf16be("b.vhd");
  const Bytes image = builder.build();
  const auto header = vhd::parse_dynamic_header(
                          ByteSpan(image).subspan(VhdBuilder::kHeaderAt, vhd::kDynamicHeaderBytes))
                          .value();
  FaultySource source(std::make_shared<MemorySource>(image));
  source.fail_read(0);
  Names warnings;
  const auto names = vhd::parent_names(header, source, image.size(), warnings);
  REQUIRE_FALSE(names);
  CHECK(names.error().kind == ErrorKind::kIo);
}

}  // namespace
}  // namespace underlay::vhd::test
