#include <doctest/doctest.h>

#include <functional>

#include "tests/support/dumped.h"
#include "tests/support/vhdx_opened.h"

namespace underlay::vhdx::test {
namespace {

using underlay::test::dump_as;
using underlay::test::Dumped;
using Names = std::vector<std::string>;

constexpr std::string_view kLogGuid = "01234567-89ab-cdef-0123-456789abcdef";

// A child with a partly present block, and a log that wraps.
VhdxBuilder with_everything() {
  VhdxBuilder builder = differencing();
  builder.blocks[1] = {.state = 7, .data = pattern(kBlock, 1), .sectors = {0, 5}};
  builder.log_guid = guid(kLogGuid);
  const LogEntry entry{.sequence_number = 7,
                       .writes = {{.offset = VhdxBuilder::kBatAt, .bytes = Bytes(4096)},
                                  {.offset = 1 << 30, .zeros = 8192}}};
  builder.log = entry.build(*builder.log_guid);
  return builder;
}

TEST_CASE("vhdx dump: the structures of a dynamic image, with their fields at their places") {
  Dumped dumped;
  REQUIRE(dump_as("vhdx", dynamic().build(), dumped));
  CHECK(dumped.structures == Names{"file type identifier", "header 1", "header 2", "region table 1",
                                   "region table 2", "log", "metadata table", "File Parameters",
                                   "Virtual Disk Size", "Virtual Disk ID", "Logical Sector Size",
                                   "Physical Sector Size", "BAT"});
  CHECK(dumped.find("header 2", "SequenceNumber").value == 2);
  CHECK(dumped.find("header 2", "SequenceNumber").offset == kHeadersAt[1] + 8);
  CHECK(dumped.find("header 1", "Checksum").meaning == "right");
  CHECK(dumped.find("header 1", "LogGuid").meaning == "the log is empty");
  CHECK(dumped.find("region table 1", "Entry[0].Guid").meaning == "BAT");
  CHECK(dumped.find("region table 1", "Entry[0].FileOffset").value == VhdxBuilder::kBatAt);
  CHECK(dumped.find("metadata table", "Entry[1].ItemId").meaning == "Virtual Disk Size");
  CHECK(dumped.find("metadata table", "Entry[1].Flags").meaning == "required");
  CHECK(dumped.find("Virtual Disk Size", "VirtualDiskSize").value == 4 << 20);
  CHECK(dumped.find("BAT", "[0]").meaning == "not present");
  CHECK(dumped.find("BAT", "[1]").meaning == "fully present, at byte 4194304");
  CHECK(dumped.find("BAT", "[1]").offset == VhdxBuilder::kBatAt + 8);
  CHECK(dumped.fields.back().name == "[3]");
}

TEST_CASE("vhdx dump: parent locator, sector bitmaps, and the log as the file has it") {
  Dumped dumped;
  REQUIRE(dump_as("vhdx", with_everything().build(), dumped));
  CHECK(dumped.find("Parent Locator", "Entry[1].Key").value == "relative_path");
  CHECK(dumped.find("Parent Locator", "Entry[1].Value").value == ".\\parent.vhdx");
  CHECK(dumped.find("log entry", "SequenceNumber").value == 7);
  CHECK(dumped.find("log entry", "LogGuid").meaning == "the header's");
  CHECK(dumped.find("log descriptor 0", "FileOffset").value == VhdxBuilder::kBatAt);
  CHECK(dumped.find("log descriptor 1", "ZeroLength").value == 8192);
  // What the log would make of it is not told.
  CHECK(dumped.find("BAT", "[1]").meaning == "partially present, at byte 4194304");
  CHECK(dumped.find("BAT", "[4096]").meaning.starts_with("sector bitmap block: fully present"));
  CHECK(dumped.find("sector bitmaps", "[1]").value == 2);
  CHECK(dumped.find("sector bitmaps", "[1]").meaning == "of 2048 sectors");
}

TEST_CASE("vhdx dump: only what is wanted is read, and a failure to tell ends it") {
  const Bytes image = dynamic().build();
  Dumped without(false);
  REQUIRE(dump_as("vhdx", image, without));
  CHECK(without.structures.back() == "BAT");
  CHECK(without.fields.back().structure == "Physical Sector Size");
  Dumped whole;
  REQUIRE(dump_as("vhdx", image, whole));
  for (size_t at = 1; at <= whole.fields.size(); ++at) {
    Dumped broken;
    broken.fail_at = at;
    CHECK(dump_as("vhdx", image, broken).error().sys_errno == EPIPE);
    CHECK(broken.fields.size() == at);
  }
}

TEST_CASE("vhdx dump: damaged images, as far as that goes") {
  const auto last = [](const std::function<void(Bytes&)>& change) {
    Bytes image = with_everything().build();
    change(image);
    Dumped dumped;
    CHECK(dump_as("vhdx", image, dumped));
    return dumped.structures.back();
  };
  CHECK(last([](Bytes&) {}) == "sector bitmaps");
  CHECK(last([](Bytes& image) {
          for (const uint64_t at : kHeadersAt) image[at + 100] ^= std::byte{1};
        }) == "sector bitmaps");
  CHECK(last([](Bytes& image) {
          for (const uint64_t at : kRegionTablesAt) image[at + 100] ^= std::byte{1};
        }) == "log descriptor 1");
  CHECK(last([](Bytes& image) { image[VhdxBuilder::kMetadataAt] = std::byte{0}; }) == "BAT");
  CHECK(last([](Bytes& image) { set_in_headers<uint64_t>(image, 72, ~uint64_t{0} << 20); }) ==
        "sector bitmaps");
  CHECK(last([](Bytes& image) { image.resize(VhdxBuilder::kBatAt + 12); }) == "BAT");
  CHECK(last([](Bytes& image) {  // KeyValueCount
          store_le<uint16_t>(image, VhdxBuilder::kItemsAt + 8 + 8 + 4 + 16 + 4 + 18, 0xffff);
        }) == "sector bitmaps");
  CHECK(last([](Bytes& image) {  // DescriptorCount
          store_le<uint32_t>(image, VhdxBuilder::kLogAt + 24, ~uint32_t{0});
        }) == "sector bitmaps");
  Dumped none;
  CHECK_FALSE(dump_as("vhdx", Bytes(4096), none));
}

}  // namespace
}  // namespace underlay::vhdx::test
