#include "formats/vhd/vhd_footer.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "formats/vhd/vhd.h"
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
  Defects defects;
  auto found = vhd::find_footer(ByteSpan(image).first(part), ByteSpan(image).last(part),
                                image.size(), defects);
  TRY(defects.refusal());
  return found;
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

TEST_CASE("vhd footer: the fields are the specification's") {
  VhdBuilder builder;
  builder.current_size = 0x12345600;
  builder.cylinders = 0x0102;
  builder.heads = 3;
  builder.sectors_per_track = 4;
  builder.creator = "vbox";
  builder.max_table_entries = 1;
  const FoundFooter found = find(builder.build()).value();
  CHECK(found.remarks.empty());
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
    CHECK(found.remarks.empty());
  }
}

TEST_CASE("vhd footer: tapdisk 0.1 and 1.1 left the hidden byte out of the checksum") {
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = 512;
  builder.fixed_data = pattern(512, 1);
  const auto hidden = [&](const std::string& creator, uint32_t version) {
    builder.creator = creator;
    builder.creator_version = version;
    Bytes image = builder.build();
    image[image.size() - 512 + 85] = std::byte{1};
    return image;
  };
  const std::string tap("tap\0", 4);
  CHECK(find(hidden(tap, 0x00000001)));
  CHECK(find(hidden(tap, 0x00010001)));
  for (const auto& [creator, version] : {std::pair(tap, 0x00010002u), std::pair(tap, 0x00010003u),
                                         std::pair(std::string("win "), 0x00010001u)}) {
    Bytes image = hidden(creator, version);
    CHECK(find_error(image) == ErrorKind::kMalformed);
    seal_footer(image, image.size() - 512);
    CHECK(find(image));
  }
}

TEST_CASE("vhd footer: hidden in one footer only is no difference") {
  VhdBuilder builder;
  builder.current_size = 16384;
  builder.creator = std::string("tap\0", 4);
  builder.creator_version = 0x00010001;
  for (const bool at_end : {false, true}) {
    Bytes image = builder.build();
    image[(at_end ? image.size() - 512 : 0) + 85] = std::byte{1};
    CHECK(find(image).value().remarks.empty());
  }
}

TEST_CASE("vhd footer: what vhd-util disabled is refused, whichever footer says so") {
  const auto disable = [](Bytes& image, size_t at) {
    const std::string_view cookie = "v_poison";
    std::copy(as_bytes(cookie).begin(), as_bytes(cookie).end(),
              image.begin() + static_cast<std::ptrdiff_t>(at));
    seal_footer(image, at);
  };
  for (const unsigned which : {1u, 2u, 3u}) {
    Bytes image = dynamic_image();
    if (which & 1) disable(image, 0);
    if (which & 2) disable(image, image.size() - 512);
    const auto found = find(image);
    REQUIRE_FALSE(found);
    CHECK(found.error().kind == ErrorKind::kMalformed);
    CHECK(found.error().message.find("vhd-util revert") != std::string::npos);
    CHECK(probe(image).verdict == ProbeVerdict::kDamaged);
  }
  Bytes fixed = fixed_image();  // its first sector is the guest's
  disable(fixed, 0);
  CHECK(find(fixed));
}

TEST_CASE("vhd footer: the copy stands in for one that tapdisk has overwritten, and it is told") {
  Bytes image = dynamic_image();
  const uint64_t data_end = image.size() - 512;
  std::fill(image.end() - 512, image.end(), std::byte{0xc7});
  const FoundFooter found = find(image).value();
  CHECK(found.data_end == data_end);
  REQUIRE(found.remarks.size() == 1);
  CHECK(found.remarks[0].text.find("in use?") != std::string::npos);
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
  REQUIRE(found.remarks.size() == 1);
  CHECK(found.remarks[0].text.find("differs") != std::string::npos);

  image = dynamic_image();
  image[100] ^= std::byte{1};
  found = find(image).value();
  REQUIRE(found.remarks.size() == 1);
  CHECK(found.remarks[0].text.find("checksum") != std::string::npos);

  image = dynamic_image();
  std::fill_n(image.begin(), 512, std::byte{0});
  found = find(image).value();
  REQUIRE(found.remarks.size() == 1);
  CHECK(found.remarks[0].text.find("missing") != std::string::npos);
}

TEST_CASE("vhd footer: the copy stands in for a damaged or missing trailing one") {
  Bytes image = dynamic_image();
  const uint64_t data_end = image.size() - 512;
  image[image.size() - 1] ^= std::byte{1};
  FoundFooter found = find(image).value();
  CHECK(found.data_end == data_end);
  CHECK(found.footer.current_size == 16384);
  CHECK(found.remarks.size() == 1);

  image.resize(image.size() - 512);
  found = find(image).value();
  CHECK(found.data_end == data_end);
  CHECK(found.remarks.size() == 1);
}

TEST_CASE(
    "vhd footer: what a guest wrote to the first sector of a fixed disk is no copy, but told") {
  const Bytes guest = dynamic_image();
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.id = std::byte{0x12};
  builder.current_size = guest.size();
  builder.fixed_data = guest;
  Bytes image = builder.build();
  const FoundFooter found = find(image).value();
  CHECK(found.footer.disk_type == vhd::kTypeFixed);
  CHECK_FALSE(found.copy);
  REQUIRE(found.remarks.size() == 1);
  CHECK(found.remarks[0].text.find("begins with the footer of a sparse image") !=
        std::string::npos);
  image[image.size() - 1] ^= std::byte{1};
  CHECK(find_error(image) == ErrorKind::kMalformed);
}

TEST_CASE("vhd footer: two of one image that say other types of it are refused") {
  for (const uint32_t type : {vhd::kTypeFixed, vhd::kTypeDifferencing}) {
    for (const bool trailing : {true, false}) {
      Bytes image = dynamic_image();
      const size_t at = trailing ? image.size() - 512 : 0;
      store_be<uint32_t>(image, at + 60, type);
      seal_footer(image, at);
      CAPTURE(type);
      CHECK(find_error(image) == ErrorKind::kMalformed);
      CHECK(find(image).error().message.find("disk_type") != std::string::npos);
      CHECK(probe(image).verdict == ProbeVerdict::kDamaged);
    }
  }
}

TEST_CASE("vhd footer: a fixed footer at 0 alone is not one") {
  Bytes image = fixed_image();
  std::rotate(image.begin(), image.end() - 512, image.end());
  CHECK(find_error(image) == ErrorKind::kMalformed);
}

}  // namespace
}  // namespace underlay::vhd::test
