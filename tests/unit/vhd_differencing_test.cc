#include "formats/vhd/vhd_differencing.h"

#include <doctest/doctest.h>

#include "formats/metadata.h"
#include "formats/vhd/vhd.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

using Kind = Extent::Kind;

TEST_CASE("vhd differencing: unset bits are the parent's sectors, set ones the child's") {
  const MemoryFiles files = parent_files();
  const Opened disk = open(differencing().build(), files);
  CHECK(read_all(disk) == differencing_content());
  const Reader& child = *disk->layers().front().reader;
  CHECK(child.identity() == "33333333-3333-3333-3333-333333333333");
  CHECK(child.map(0, kSize, MapFor::kRead).value().kind == Kind::kParent);
  CHECK(child.map(0, kSize, MapFor::kRead).value().length == kBlock);
  const Extent tail =
      child.map(kBlock + 5 * 512 + 100, kSize - kBlock - 5 * 512 - 100, MapFor::kRead).value();
  CHECK(tail.kind == Kind::kData);
  CHECK(tail.length == 2 * 512 - 100);
  CHECK(child.map(3 * kBlock, 100, MapFor::kRead).value().kind == Kind::kParent);
}

TEST_CASE("vhd differencing: runs go on across the words of a bitmap, and end where it says") {
  VhdBuilder child = differencing();
  child.block_size = 256 << 10;  // 512 sectors, 8 words
  child.blocks.clear();
  child.current_size = 256 << 10;
  Bytes bitmap(64);
  for (const size_t sector : {size_t{63}, size_t{128}, size_t{511}}) {
    bitmap[sector / 8] |= static_cast<std::byte>(0x80u >> (sector % 8));
  }
  for (size_t sector = 191; sector < 450; ++sector) {
    bitmap[sector / 8] |= static_cast<std::byte>(0x80u >> (sector % 8));
  }
  child.blocks[0] = {bitmap, pattern(256 << 10, 5)};
  const Opened disk = open(child.build(), parent_files());
  const Reader& reader = *disk->layers().front().reader;
  const auto run = [&](uint64_t sector, uint64_t sectors) {
    const Extent extent = reader.map(sector * 512, sectors * 512, MapFor::kRead).value();
    return std::pair(extent.kind, extent.length / 512);
  };
  CHECK(run(0, 512) == std::pair(Kind::kParent, uint64_t{63}));
  CHECK(run(63, 449) == std::pair(Kind::kData, uint64_t{1}));
  CHECK(run(64, 448) == std::pair(Kind::kParent, uint64_t{64}));
  CHECK(run(128, 384) == std::pair(Kind::kData, uint64_t{1}));
  CHECK(run(190, 322) == std::pair(Kind::kParent, uint64_t{1}));
  CHECK(run(191, 321) == std::pair(Kind::kData, uint64_t{259}));
  CHECK(run(200, 3) == std::pair(Kind::kData, uint64_t{3}));
  CHECK(run(450, 62) == std::pair(Kind::kParent, uint64_t{61}));
  CHECK(run(511, 1) == std::pair(Kind::kData, uint64_t{1}));
}

TEST_CASE("vhd differencing: what needs a table that is not in memory would block") {
  VhdBuilder child = differencing();
  for (const uint32_t block : {3u, 4u, 5u}) child.blocks[block] = child.blocks[1];
  const Opened disk = open(child.build(), parent_files());
  const Reader& reader = *disk->layers().front().reader;
  // The bitmap of block 5 lies in another slice than the BAT and block 1.
  REQUIRE(child.block_offsets()[5] > Metadata::kSliceBytes);
  CHECK(reader.map(kBlock, 512, MapFor::kReadNow).error().kind == ErrorKind::kWouldBlock);
  CHECK(reader.map(kBlock, 512, MapFor::kRead));
  CHECK(reader.map(kBlock, 512, MapFor::kReadNow));
  const auto waiting = reader.map(5 * kBlock, 512, MapFor::kReadNow);
  REQUIRE_FALSE(waiting);
  CHECK(waiting.error().kind == ErrorKind::kWouldBlock);
  CHECK(reader.map(5 * kBlock, 512, MapFor::kRead));
  CHECK(reader.map(5 * kBlock, 512, MapFor::kReadNow).value().kind == Kind::kData);
}

TEST_CASE("vhd differencing: a parent with another identity is refused") {
  VhdBuilder child = differencing();
  child.parent_id = std::byte{0x12};
  CHECK(open(child.build(), parent_files()).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhd differencing: a missing parent is a failure, not zeros") {
  CHECK(open(differencing().build()).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhd differencing: a parent that is no VHD is refused") {
  MemoryFiles files;
  files.add("parent.vhd", pattern(kSize, 1));
  CHECK(open(differencing().build(), files).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhd differencing: without parent_unique_id, only tapdisk's say what the parent is") {
  VhdBuilder child = differencing();
  child.parent_id = std::byte{0};
  CHECK(open(child.build(), parent_files()).error() == ErrorKind::kUnsupported);
}

TEST_CASE("vhd differencing: the parent's time stamp does not matter") {
  Bytes image = differencing().build();
  for (const uint32_t time : {1u, 0x80000000u, ~0u}) {
    set_in_header<uint32_t>(image, 56, time);
    const Opened disk = open(image, parent_files());
    CHECK(read_all(disk) == differencing_content());
    CHECK(disk.disk->warnings.empty());
  }
}

TEST_CASE("vhd differencing: an image that is its own parent is refused") {
  VhdBuilder child = differencing();
  child.parent_id = child.id;
  MemoryFiles files;
  files.add("parent.vhd", child.build());
  CHECK(open(child.build(), files).error() == ErrorKind::kLimit);
}

TEST_CASE("vhd differencing: a child sees all that its parent stores") {
  VhdBuilder parent = dynamic();
  parent.creator = "vbox";
  parent.cylinders = 10;  // alone, it would end within block 1
  parent.heads = parent.sectors_per_track = 1;
  MemoryFiles files;
  files.add("parent.vhd", parent.build());
  CHECK(read_all(open(differencing().build(), files)) == differencing_content());
}

TEST_CASE("vhd differencing: names that no VHD can have for its parent are not written") {
  const std::string long_name(257, 'x');
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no file's name"},
      {"folder/", "no file's name"},
      {std::string("a\0b", 3), "NUL"},
      {"s3://bucket/base.vhd", "URL"},
      {"a\\b", "backslash"},
      {"\xff.vhd", "no text in UTF-8"},
      {long_name, "has 257 UTF-16 units, a vhd holds 256"},
      {"folder/" + std::string(4096, '/') + "x", "has 4104 bytes, at most 4096"},
  };
  for (const auto& one : cases) {
    CAPTURE(one.first);
    const auto refused = ParentLocators::of(one.first);
    REQUIRE(!refused);
    CHECK(refused.error().kind == ErrorKind::kUsage);
    CHECK(refused.error().message.find(one.second) != std::string::npos);
  }
  CHECK(ParentLocators::of(long_name.substr(1)));
}

}  // namespace
}  // namespace underlay::vhd::test
