#include "formats/vhd/vhd_layout.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/vhd_builder.h"

namespace underlay::vhd::test {
namespace {

Bytes dynamic_image() {
  VhdBuilder builder;
  builder.current_size = 16384;
  builder.blocks[1] = {Bytes(1, std::byte{0xff}), pattern(4096, 2)};
  return builder.build();
}

Bytes header_of(const Bytes& image) {
  const auto at = image.begin() + static_cast<std::ptrdiff_t>(VhdBuilder::kHeaderAt);
  return Bytes(at, at + vhd::kDynamicHeaderBytes);
}

Result<vhd::DynamicHeader> parse(const Bytes& bytes) {
  Defects defects;
  const auto header = vhd::parse_dynamic_header(bytes, defects);
  TRY(defects.refusal());
  return header.value();
}

template <class T>
Result<vhd::DynamicHeader> header_with(size_t offset, T value) {
  Bytes header = header_of(dynamic_image());
  store_be<T>(header, offset, value);
  seal_header(header, 0);
  return parse(header);
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
  const auto header = parse(header_of(builder.build())).value();
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
  REQUIRE(parse(good));
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes header = good;
    header[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    INFO("bit ", bit);
    CHECK_FALSE(parse(header));
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
  CHECK_FALSE(header.is_encrypted);
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == bits.size());

  header.checksum = ~0x02u;  // -1 + 3
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == 0);
  header.batmap_version = 0x00010001;
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == bits.size());
}

TEST_CASE("vhd batmap: a version after tapdisk's last is not read") {
  const Bytes bits(512);
  vhd::BatmapHeader header{.batmap_bytes = 512, .batmap_version = 0x00010002, .checksum = ~0u};
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == 512);
  header.batmap_version = 0x00010003;
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == 0);
}

TEST_CASE("vhd batmap: of one made for a larger disk, what tapdisk sums is proved, and no more") {
  Bytes bits(1536);
  bits[1] = std::byte{7};
  bits[600] = std::byte{9};
  vhd::BatmapHeader header{.batmap_bytes = 1536, .batmap_version = 0x00010002, .checksum = ~7u};
  // One sector of bits for each 8 GiB; less is one sector, too.
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == 512);
  CHECK(vhd::proved_batmap_bytes(header, bits, uint64_t{8} << 30) == 512);
  CHECK(vhd::proved_batmap_bytes(header, bits, uint64_t{9} << 30) == 0);
  header.checksum = ~16u;
  CHECK(vhd::proved_batmap_bytes(header, bits, uint64_t{9} << 30) == 1536);
  CHECK(vhd::proved_batmap_bytes(header, bits, 4096) == 1536);
}

TEST_CASE("vhd batmap: the keyhash says that the blocks are encrypted") {
  Bytes sector(512);
  const std::string_view cookie = "tdbatmap";
  std::copy(as_bytes(cookie).begin(), as_bytes(cookie).end(), sector.begin());
  sector[28] = std::byte{1};  // the marker
  CHECK_FALSE(vhd::parse_batmap_header(sector).value().is_encrypted);
  sector[29] = std::byte{1};
  CHECK(vhd::parse_batmap_header(sector).value().is_encrypted);
}

TEST_CASE("vhd locator: data_space counts sectors, or, from a sector on, bytes") {
  const auto space = [](uint32_t data_space) {
    return vhd::ParentLocator{.data_space = data_space}.space_bytes();
  };
  CHECK(space(0) == 0);
  CHECK(space(1) == 512);
  CHECK(space(511) == 511 * 512);
  CHECK(space(512) == 512);
  CHECK(space(~0u) == ~0u);
}

}  // namespace
}  // namespace underlay::vhd::test
