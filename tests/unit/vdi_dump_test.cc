#include <doctest/doctest.h>

#include "io/store_le.h"
#include "tests/support/dumped.h"
#include "tests/support/vdi_disks.h"

namespace underlay::vdi::test {
namespace {

using underlay::test::dump_as;
using underlay::test::Dumped;

TEST_CASE("vdi dump: the header's fields at their places, and every entry of the map") {
  const Bytes image = dynamic().build();
  Dumped dumped;
  REQUIRE(dump_as("vdi", image, dumped));
  CHECK(dumped.structures == std::vector<std::string>{"header", "block map"});
  CHECK(dumped.find("header", "text").value == "<<< Oracle VM VirtualBox Disk Image >>>\n");
  CHECK(dumped.find("header", "version").meaning == "1.1");
  CHECK(dumped.find("header", "image_type").meaning == "dynamic");
  CHECK(dumped.find("header", "disk_size").value == kSize);
  CHECK(dumped.find("header", "disk_size").offset == 368);
  CHECK(dumped.find("header", "uuid_image").value == "11111111-1111-1111-1111-111111111111");
  CHECK(dumped.find("block map", "[0]").meaning == "never written");
  CHECK(dumped.find("block map", "[1]").value == 2);
  CHECK(dumped.find("block map", "[1]").offset == VdiBuilder::kMapAt + 4);
  CHECK(dumped.find("block map", "[1]").meaning == "at byte 9216");
  CHECK(dumped.find("block map", "[2]").meaning == "discarded");
  CHECK(dumped.fields.back().name == "[5]");
}

TEST_CASE("vdi dump: only what is wanted is read, and a failure to tell ends it") {
  const Bytes image = dynamic().build();
  Dumped without(false);
  REQUIRE(dump_as("vdi", image, without));
  CHECK(without.structures.size() == 2);
  CHECK(without.fields.back().structure == "header");
  Dumped whole;
  REQUIRE(dump_as("vdi", image, whole));
  for (size_t at = 1; at <= whole.fields.size(); ++at) {
    Dumped broken;
    broken.fail_at = at;
    CHECK(dump_as("vdi", image, broken).error().sys_errno == EPIPE);
    CHECK(broken.fields.size() == at);
  }
}

TEST_CASE("vdi dump: damaged images, as far as that goes") {
  Bytes image = dynamic().build();
  image.resize(VdiBuilder::kMapAt + 10);
  Dumped cut;
  CHECK(dump_as("vdi", image, cut));
  CHECK(cut.fields.back().name == "[1]");
  image = dynamic().build();
  store_le<uint32_t>(image, 340, 0xfffffff0);
  Dumped beyond;
  CHECK(dump_as("vdi", image, beyond));
  CHECK(beyond.fields.back().name == "uuid_parent");
  image = dynamic().build();
  store_le<uint32_t>(image, 68, 1);
  Dumped old;
  CHECK(dump_as("vdi", image, old));
  CHECK(old.find("header", "disk_size").offset == 352);
  image[64] ^= std::byte{1};
  Dumped none;
  CHECK_FALSE(dump_as("vdi", image, none));
}

}  // namespace
}  // namespace underlay::vdi::test
