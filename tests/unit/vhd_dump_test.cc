#include <doctest/doctest.h>

#include "tests/support/dumped.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

using underlay::test::dump_as;
using underlay::test::Dumped;
using Names = std::vector<std::string>;

TEST_CASE("vhd dump: the structures of a dynamic image, with their fields at their places") {
  const Bytes image = dynamic().build();
  Dumped dumped;
  REQUIRE(dump_as("vpc", image, dumped));
  CHECK(dumped.structures ==
        Names{"footer copy", "dynamic disk header", "BAT", "sector bitmaps", "footer"});
  const auto& size = dumped.find("footer", "current_size");
  CHECK(size.value == kSize);
  CHECK(size.offset == image.size() - 512 + 48);
  CHECK(dumped.find("footer copy", "disk_type").meaning == "dynamic");
  CHECK(dumped.find("footer copy", "disk_type").offset == 60);
  CHECK(dumped.find("footer", "checksum").meaning == "right");
  CHECK(dumped.find("dynamic disk header", "table_offset").value == VhdBuilder::kTableAt);
  CHECK(dumped.find("dynamic disk header", "checksum").meaning == "right");
  CHECK(dumped.find("BAT", "[0]").meaning == "free");
  const uint64_t block = dynamic().block_offsets().at(1);
  CHECK(dumped.find("BAT", "[1]").value == block / 512);
  CHECK(dumped.find("BAT", "[1]").meaning == fmt::format("at byte {}", block));
  CHECK(dumped.find("sector bitmaps", "[1]").offset == block);
  CHECK(dumped.find("sector bitmaps", "[1]").value == 8);
  CHECK(dumped.find("sector bitmaps", "[1]").meaning == "of 8 sectors");
}

TEST_CASE("vhd dump: batmap and parent locators; a fixed image has its footer alone") {
  VhdBuilder builder = with_batmap();
  Dumped dumped;
  REQUIRE(dump_as("vpc", builder.build(), dumped));
  CHECK(dumped.structures == Names{"footer copy", "dynamic disk header", "BAT", "batmap header",
                                   "batmap", "parent locator W2ru", "sector bitmaps", "footer"});
  CHECK(dumped.find("batmap", "bits").value == 1);
  CHECK(dumped.find("batmap header", "checksum").meaning == "right");
  CHECK(dumped.find("parent locator W2ru", "data").value == ".\\parent.vhd");
  CHECK(dumped.find("dynamic disk header", "parent_locator[0].platform_code").value == "W2ru");
  CHECK(dumped.find("sector bitmaps", "[1]").value == 4);

  VhdBuilder fixed;
  fixed.disk_type = 2;
  fixed.current_size = 4096;
  fixed.fixed_data = pattern(4096, 1);
  Dumped alone;
  REQUIRE(dump_as("vpc", fixed.build(), alone));
  CHECK(alone.structures == Names{"footer"});
}

TEST_CASE("vhd dump: only what is wanted is read, and a failure to tell ends it") {
  const Bytes image = with_batmap().build();
  Dumped without(false);
  REQUIRE(dump_as("vpc", image, without));
  CHECK(without.structures.size() == 8);
  for (const Dumped::Field& field : without.fields) {
    CHECK(field.structure != "BAT");
    CHECK(field.structure != "sector bitmaps");
  }
  Dumped whole;
  REQUIRE(dump_as("vpc", image, whole));
  for (size_t at = 1; at <= whole.fields.size(); ++at) {
    Dumped broken;
    broken.fail_at = at;
    CHECK(dump_as("vpc", image, broken).error().sys_errno == EPIPE);
    CHECK(broken.fields.size() == at);
  }
}

TEST_CASE("vhd dump: damaged images, as far as that goes") {
  const auto structures = [](const Bytes& image) {
    Dumped dumped;
    CHECK(dump_as("vpc", image, dumped));
    return dumped.structures;
  };
  Bytes image = dynamic().build();
  image[image.size() - 400] ^= std::byte{1};
  CHECK(structures(image).back() == "footer at the end of the file");
  image = dynamic().build();
  image[VhdBuilder::kHeaderAt + 900] = std::byte{1};
  CHECK(structures(image) == Names{"footer copy", "dynamic disk header", "BAT", "footer"});
  image[VhdBuilder::kHeaderAt] = std::byte{1};
  CHECK(structures(image) == Names{"footer copy", "dynamic disk header", "footer"});
  image = dynamic().build();
  set_in_header<uint32_t>(image, 28, 1 << 30);
  CHECK(structures(image) == Names{"footer copy", "dynamic disk header", "BAT", "footer"});
  image = dynamic().build();
  set_in_header<uint64_t>(image, 16, ~uint64_t{0} << 9);
  CHECK(structures(image) == Names{"footer copy", "dynamic disk header", "BAT", "footer"});
  image = dynamic().build();
  store_be<uint32_t>(image, VhdBuilder::kTableAt, 1 << 30);
  CHECK(structures(image).size() == 5);
  image.resize(image.size() - 1);  // a footer of 511 bytes
  CHECK(structures(image).back() == "footer");
  Dumped none;
  CHECK_FALSE(dump_as("vpc", Bytes(4096), none));
}

}  // namespace
}  // namespace underlay::vhd::test
