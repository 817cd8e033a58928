#include "formats/vhd_layout.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "formats/vhd.h"
#include "tests/support/vhd_builder.h"

namespace underlay::vhd::test {
namespace {

using vhd::FoundFooter;

Bytes fixed_image() {
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = 4096;
  builder.fixed_data = pattern(4096, 1);
  return builder.build();
}

Bytes dynamic_image() {
  VhdBuilder builder;
  builder.current_size = 16384;
  builder.blocks[1] = {Bytes(1, std::byte{0xff}), pattern(4096, 2)};
  return builder.build();
}

Result<FoundFooter> find(const Bytes& image) {
  const size_t part = std::min<size_t>(image.size(), 1536);
  return vhd::find_footer(ByteSpan(image).first(part), ByteSpan(image).last(part), image.size());
}

ErrorKind find_error(const Bytes& image) {
  const auto found = find(image);
  REQUIRE_FALSE(found);
  return found.error().kind;
}

ProbeResult probe(const Bytes& image) {
  const size_t tail = std::min(image.size(), ProbeInput::kTailBytes);
  return probe_vhd({.head = image, .tail = ByteSpan(image).last(tail), .size = image.size()});
}

Bytes header_of(const Bytes& image) {
  const auto at = image.begin() + static_cast<std::ptrdiff_t>(VhdBuilder::kHeaderAt);
  return Bytes(at, at + vhd::kDynamicHeaderBytes);
}

template <class T>
Result<vhd::DynamicHeader> header_with(size_t offset, T value) {
  Bytes header = header_of(dynamic_image());
  store_be<T>(header, offset, value);
  seal_header(header, 0);
  return vhd::parse_dynamic_header(header);
}

TEST_CASE("vhd footer: the fields are the specification's") {
  VhdBuilder builder;
  builder.current_size = 0x12345600;
  builder.cylinders = 0x0102;
  builder.heads = 3;
  builder.sectors_per_track = 4;
  builder.creator = "vbox";
  builder.max_table_entries = 1;
  const FoundFooter found = find(builder.build()).value();
  CHECK(found.warnings.empty());
  CHECK(found.footer.disk_type == vhd::kTypeDynamic);
  CHECK(found.footer.data_offset == 512);
  CHECK(found.footer.current_size == 0x12345600);
  CHECK(found.footer.creator() == "vbox");
  CHECK(found.footer.creator_version == 0x000a0000);
  CHECK(found.footer.chs_size() == 0x0102u * 3 * 4 * 512);
  CHECK(vhd::to_string(found.footer.unique_id) == "11111111-1111-1111-1111-111111111111");
}

TEST_CASE("vhd footer: no single wrong bit leaves a fixed image whole, nor makes it raw") {
  const Bytes good = fixed_image();
  CHECK(probe(good).verdict == ProbeVerdict::kYes);
  for (size_t bit = 0; bit < vhd::kFooterBytes * 8; ++bit) {
    Bytes image = good;
    image[image.size() - vhd::kFooterBytes + bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    const ProbeResult result = probe(image);
    INFO("bit ", bit);
    CHECK(result.verdict == ProbeVerdict::kDamaged);
    CHECK_FALSE(result.reason.empty());
  }
}

TEST_CASE("vhd footer: a file without any is no VHD") {
  CHECK(probe(Bytes{}).verdict == ProbeVerdict::kNo);
  CHECK(probe(Bytes(510)).verdict == ProbeVerdict::kNo);
  CHECK(probe(Bytes(8192)).verdict == ProbeVerdict::kNo);
  CHECK(probe(Bytes(8192, std::byte{0xff})).verdict == ProbeVerdict::kNo);
  CHECK(probe(pattern(65536, 7)).verdict == ProbeVerdict::kNo);
}

TEST_CASE("vhd footer: 511 bytes at the end are one, too") {
  for (Bytes image : {fixed_image(), dynamic_image()}) {
    const uint64_t data_end = image.size() - 512;
    image.pop_back();
    const FoundFooter found = find(image).value();
    CHECK(found.data_end == data_end);
    CHECK(found.warnings.empty());
  }
}

TEST_CASE("vhd footer: tapdisk's hidden byte may be missing in the checksum") {
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = 512;
  builder.fixed_data = pattern(512, 1);
  builder.creator = std::string("tap\0", 4);
  Bytes image = builder.build();
  image[image.size() - 512 + 85] = std::byte{1};
  CHECK(find(image));
  seal_footer(image, image.size() - 512);
  CHECK(find(image));

  builder.creator = "win ";
  image = builder.build();
  image[image.size() - 512 + 85] = std::byte{1};
  CHECK(find_error(image) == ErrorKind::kMalformed);
}

TEST_CASE("vhd footer: file_format_version must be 1.x") {
  Bytes image = fixed_image();
  store_be<uint32_t>(image, image.size() - 512 + 12, 0x00020000);
  seal_footer(image, image.size() - 512);
  CHECK(find_error(image) == ErrorKind::kMalformed);
}

TEST_CASE("vhd footer: the trailing one is the authority, and a copy that differs is told") {
  Bytes image = dynamic_image();
  store_be<uint64_t>(image, 48, 8192);
  seal_footer(image, 0);
  FoundFooter found = find(image).value();
  CHECK(found.footer.current_size == 16384);
  REQUIRE(found.warnings.size() == 1);
  CHECK(found.warnings[0].find("differs") != std::string::npos);

  image = dynamic_image();
  image[100] ^= std::byte{1};
  found = find(image).value();
  REQUIRE(found.warnings.size() == 1);
  CHECK(found.warnings[0].find("checksum") != std::string::npos);

  image = dynamic_image();
  std::fill_n(image.begin(), 512, std::byte{0});
  found = find(image).value();
  REQUIRE(found.warnings.size() == 1);
  CHECK(found.warnings[0].find("missing") != std::string::npos);
}

TEST_CASE("vhd footer: the copy stands in for a damaged or missing trailing one") {
  Bytes image = dynamic_image();
  const uint64_t data_end = image.size() - 512;
  image[image.size() - 1] ^= std::byte{1};
  FoundFooter found = find(image).value();
  CHECK(found.data_end == data_end);
  CHECK(found.footer.current_size == 16384);
  CHECK(found.warnings.size() == 1);

  image.resize(image.size() - 512);
  found = find(image).value();
  CHECK(found.data_end == data_end);
  CHECK(found.warnings.size() == 1);
}

TEST_CASE("vhd footer: what a guest wrote to the first sector of a fixed disk is no copy") {
  const Bytes guest = dynamic_image();
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = guest.size();
  builder.fixed_data = guest;
  Bytes image = builder.build();
  CHECK(find(image).value().footer.disk_type == vhd::kTypeFixed);
  CHECK(find(image).value().warnings.empty());
  image[image.size() - 1] ^= std::byte{1};
  CHECK(find_error(image) == ErrorKind::kMalformed);
}

TEST_CASE("vhd footer: a fixed footer at 0 alone is not one") {
  Bytes image = fixed_image();
  std::rotate(image.begin(), image.end() - 512, image.end());
  CHECK(find_error(image) == ErrorKind::kMalformed);
}

TEST_CASE("vhd size: which creators mean current_size") {
  vhd::Footer footer;
  const auto means_current = [&](std::string_view creator) {
    std::copy_n(creator.begin(), 4, footer.creator_application.begin());
    return footer.creator_means_current_size();
  };
  using namespace std::string_view_literals;
  for (const auto creator : {"win "sv, "d2v "sv, "tap\0"sv, "CTXS"sv, "qem2"sv}) {
    CHECK(means_current(creator));
  }
  for (const auto creator : {"vpc "sv, "qemu"sv, "vbox"sv, "wa\0\0"sv, "tap "sv, "\0\0\0\0"sv}) {
    CHECK_FALSE(means_current(creator));
  }
}

TEST_CASE("vhd size: the largest geometry says nothing") {
  vhd::Footer footer;
  footer.cylinders = 65535;
  footer.heads = 16;
  footer.sectors_per_track = 255;
  CHECK(footer.geometry_is_saturated());
  footer.heads = 255;
  CHECK_FALSE(footer.geometry_is_saturated());
  CHECK(footer.chs_size() == 65535ull * 255 * 255 * 512);
}

TEST_CASE("vhd header: the fields are the specification's") {
  VhdBuilder builder;
  builder.disk_type = 4;
  builder.current_size = 5 * 4096;
  builder.locators = {{"W2ru", utf16le("a")}, {"MacX", pattern(513, 1)}};
  builder.parent_unicode_name = utf16be("name");
  const auto header = vhd::parse_dynamic_header(header_of(builder.build())).value();
  CHECK(header.table_offset == 1536);
  CHECK(header.max_table_entries == 5);
  CHECK(header.block_size == 4096);
  CHECK(vhd::to_string(header.parent_unique_id) == "22222222-2222-2222-2222-222222222222");
  CHECK(header.parent_unicode_name[1] == std::byte{'n'});
  CHECK(header.locators[0].code() == "W2ru");
  CHECK(header.locators[0].data_length == 2);
  CHECK(header.locators[0].data_offset == 2048);
  CHECK(header.locators[1].data_length == 513);
  CHECK(header.locators[1].data_offset == 2560);
}

TEST_CASE("vhd header: no single wrong bit is accepted") {
  const Bytes good = header_of(dynamic_image());
  REQUIRE(vhd::parse_dynamic_header(good));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes header = good;
    header[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    INFO("bit ", bit);
    CHECK_FALSE(vhd::parse_dynamic_header(header));
  }
}

TEST_CASE("vhd header: one wrong field, with a good checksum") {
  CHECK_FALSE(header_with<uint64_t>(0, 0x636f6e6563746978));  // "conectix"
  CHECK_FALSE(header_with<uint32_t>(24, 0x00020000));
  CHECK_FALSE(header_with<uint64_t>(16, 1537));
  for (const uint32_t block_size : {0u, 1u, 256u, 511u, 513u, 4097u, 3u << 20, 512u << 20, ~0u}) {
    CHECK_FALSE(header_with<uint32_t>(32, block_size));
  }
  CHECK(header_with<uint32_t>(24, 0x00010001));
  CHECK(header_with<uint32_t>(28, ~0u).value().table_bytes() == 4ull * 0xffffffff);
}

TEST_CASE("vhd block: the sector bitmap takes whole sectors") {
  const auto bitmap_bytes = [](uint32_t block_size) {
    return header_with<uint32_t>(32, block_size).value().bitmap_bytes();
  };
  CHECK(bitmap_bytes(512) == 512);
  CHECK(bitmap_bytes(512 << 10) == 512);
  CHECK(bitmap_bytes(2 << 20) == 512);
  CHECK(bitmap_bytes(4 << 20) == 1024);
  CHECK(bitmap_bytes(256 << 20) == 65536);
}

TEST_CASE("vhd batmap: header and checksum, and version 1.1's signed sum") {
  Bytes sector(512);
  CHECK_FALSE(vhd::parse_batmap_header(sector));
  const std::string_view cookie = "tdbatmap";
  std::copy(as_bytes(cookie).begin(), as_bytes(cookie).end(), sector.begin());
  store_be<uint64_t>(sector, 8, 4096);
  store_be<uint32_t>(sector, 16, 0xffffffff);
  store_be<uint32_t>(sector, 20, 0x00010002);
  store_be<uint32_t>(sector, 24, ~0x102u);
  const Bytes bits = {std::byte{0xff}, std::byte{0x03}};
  auto header = vhd::parse_batmap_header(sector).value();
  CHECK(header.batmap_offset == 4096);
  CHECK(header.batmap_bytes == 0xffffffffull * 512);
  CHECK(vhd::batmap_checksum_holds(header, bits));

  header.checksum = ~0x02u;  // -1 + 3
  CHECK_FALSE(vhd::batmap_checksum_holds(header, bits));
  header.batmap_version = 0x00010001;
  CHECK(vhd::batmap_checksum_holds(header, bits));
}

}  // namespace
}  // namespace underlay::vhd::test
