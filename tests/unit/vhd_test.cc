#include "formats/vhd/vhd.h"

#include <doctest/doctest.h>

#include <cstring>

#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

using Kind = Extent::Kind;
using VhdSize = ImageOptions::VhdSize;

TEST_CASE("vhd fixed: the bytes before the footer are the disk's") {
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = kSize;
  builder.fixed_data = pattern(kSize, 1);
  const Opened disk = open(builder.build());
  CHECK(read_all(disk) == builder.fixed_data);
  CHECK(disk.disk->warnings.empty());
  CHECK(disk->layers().front().reader->identity() == "11111111-1111-1111-1111-111111111111");
}

TEST_CASE("vhd fixed: a disk larger than the file is refused, not filled up") {
  VhdBuilder builder;
  builder.disk_type = 2;
  builder.current_size = kSize + 512;
  builder.fixed_data = pattern(kSize, 1);  // the footer would serve as the last sector
  CHECK(open(builder.build()).error() == ErrorKind::kTruncated);
  builder.current_size = ~uint64_t{0};
  CHECK(open(builder.build()).error() == ErrorKind::kTruncated);
}

TEST_CASE("vhd: unknown disk types are refused by number") {
  for (const uint32_t type : {0u, 1u, 5u, 6u, 7u, 0x03000000u, ~0u}) {
    Bytes image = dynamic().build();
    set_in_footers<uint32_t>(image, 60, type);
    const Opened opened = open(image);
    CHECK(opened.error() == ErrorKind::kUnsupported);
    CHECK(opened.disk.error().message.find(std::to_string(type)) != std::string::npos);
  }
}

TEST_CASE("vhd dynamic: blocks are the disk's, absent ones are zeros") {
  const Opened disk = open(dynamic().build());
  CHECK(disk->unpadded_size() == kSize);
  CHECK(read_all(disk) == content_of(dynamic()));
  CHECK(disk.disk->warnings.empty());
  for (const uint64_t offset : {uint64_t{1}, uint64_t{kBlock - 1}, uint64_t{3 * kBlock + 511}}) {
    const Bytes whole = content_of(dynamic());
    const Bytes part = read(disk, offset, 700).value();
    CHECK(std::memcmp(part.data(), whole.data() + offset, 700) == 0);
  }
}

TEST_CASE("vhd dynamic: the sector bitmap does not matter") {
  VhdBuilder builder = dynamic();
  for (auto& [number, block] : builder.blocks) block.bitmap = Bytes(1, std::byte{0});
  CHECK(read_all(open(builder.build())) == content_of(builder));
}

TEST_CASE("vhd dynamic: entries beyond the disk's size do not count") {
  VhdBuilder builder = dynamic();
  builder.max_table_entries = 100;
  Bytes image = builder.build();
  store_be<uint32_t>(image, VhdBuilder::kTableAt + 6 * 4, 0);
  CHECK(read_all(open(image)) == content_of(builder));
}

TEST_CASE("vhd dynamic: a BAT that is too small for the disk is refused") {
  VhdBuilder builder = dynamic();
  builder.max_table_entries = 6;
  CHECK(open(builder.build()));
  Bytes image = builder.build();
  set_in_header<uint32_t>(image, 28, 5);
  CHECK(open(image).error() == ErrorKind::kTruncated);
}

TEST_CASE("vhd dynamic: runs of absent blocks are one extent") {
  VhdBuilder builder;
  builder.current_size = 20000 * uint64_t{kBlock};
  builder.cylinders = 20000;
  builder.heads = 8;
  builder.sectors_per_track = 1;
  builder.blocks[3000] = {Bytes(1, std::byte{0xff}), pattern(kBlock, 1)};
  const Opened disk = open(builder.build());
  const Extent first = disk->map(100, builder.current_size - 100, MapFor::kRead).value();
  CHECK(first.kind == Kind::kZero);
  CHECK(first.length == 3000 * uint64_t{kBlock} - 100);
  const Extent data = disk->map(3000 * uint64_t{kBlock}, 10 * kBlock, MapFor::kRead).value();
  CHECK(data.kind == Kind::kData);
  CHECK(data.length == kBlock);
}

TEST_CASE("vhd size: the creator decides, the operator may force, and both are told") {
  VhdBuilder builder = dynamic();
  builder.cylinders = 40;  // of 44 sectors
  builder.heads = builder.sectors_per_track = 1;
  constexpr uint64_t kChsSize = 40 * 512;
  const Opened windows = open(builder.build());
  CHECK(windows->size() == kSize);
  REQUIRE(windows.disk->warnings.size() == 1);
  for (const std::string& text :
       {std::to_string(kSize), std::to_string(kChsSize), std::string("force_size_calc")}) {
    CHECK(windows.disk->warnings[0].find(text) != std::string::npos);
  }
  const Opened forced = open(builder.build(), MemoryFiles(), VhdSize::kChs);
  CHECK(forced->size() == kChsSize);
  CHECK(forced.disk->warnings.empty());

  builder.creator = "vbox";
  CHECK(open(builder.build())->size() == kChsSize);
  CHECK(open(builder.build(), MemoryFiles(), VhdSize::kCurrentSize)->size() == kSize);
}

TEST_CASE("vhd size: a geometry larger than the image can hold is refused") {
  VhdBuilder builder = dynamic();
  builder.creator = "vpc ";
  builder.cylinders = 49;  // one sector more than the BAT reaches
  builder.heads = builder.sectors_per_track = 1;
  const Opened opened = open(builder.build());
  CHECK(opened.error() == ErrorKind::kTruncated);
  CHECK(opened.disk.error().message.find("force_size_calc") != std::string::npos);
  CHECK(open(builder.build(), MemoryFiles(), VhdSize::kCurrentSize));
}

TEST_CASE("vhd size: the saturated geometry gives way to current_size") {
  VhdBuilder builder = dynamic();
  builder.creator = "vpc ";
  builder.cylinders = 65535;
  builder.heads = 16;
  builder.sectors_per_track = 255;
  const Opened disk = open(builder.build());
  CHECK(disk->size() == kSize);
  CHECK(disk.disk->warnings.empty());
}

TEST_CASE("vhd dynamic: 2040 GiB open with a handful of reads") {
  VhdBuilder builder;
  builder.block_size = 2 << 20;
  builder.current_size = uint64_t{2040} << 30;
  builder.cylinders = 65535;
  builder.heads = 16;
  builder.sectors_per_track = 255;
  builder.blocks[1044479] = {Bytes(512, std::byte{0xff}), pattern(2 << 20, 9)};
  const auto source =
      std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.build()));
  const Opened disk = open(source);
  CHECK(source->reads() <= 8);
  CHECK(disk->size() == uint64_t{2040} << 30);
  const Bytes last = read(disk, disk->size() - 512, 512).value();
  CHECK(std::memcmp(last.data(), builder.blocks[1044479].data.data() + (2 << 20) - 512, 512) == 0);
  CHECK(disk->map(0, 1 << 20, MapFor::kRead).value().kind == Kind::kZero);
}

}  // namespace
}  // namespace underlay::vhd::test
