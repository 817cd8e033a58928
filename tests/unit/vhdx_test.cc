#include "formats/vhdx/vhdx.h"

#include <doctest/doctest.h>

#include <cstring>

#include "formats/metadata.h"
#include "tests/support/vhdx_opened.h"

namespace underlay::vhdx::test {
namespace {

using Kind = Extent::Kind;
using States = std::vector<uint8_t>;

constexpr uint64_t kMaxLength = uint64_t{1} << 40;

std::pair<Kind, uint64_t> run_at(const Opened& opened, uint64_t offset,
                                 uint64_t length = kMaxLength) {
  const Reader& reader = opened.reader();
  const Extent extent =
      reader.map(offset, std::min(length, reader.size() - offset), MapFor::kRead).value();
  return {extent.kind, extent.length};
}

TEST_CASE("vhdx dynamic: stored blocks are data, absent ones zeros") {
  const Opened disk = open(dynamic().build());
  CHECK(read_all(disk) == content_of(dynamic()));
  CHECK(disk.disk->warnings.empty());
  CHECK(run_at(disk, 100) == std::pair(Kind::kZero, uint64_t{kBlock - 100}));
  CHECK(run_at(disk, kBlock + 5) == std::pair(Kind::kData, uint64_t{kBlock - 5}));
  CHECK(disk.reader().identity() ==
        "11111111-2222-3333-4444-555555555555 with sectors of 512 bytes");
}

TEST_CASE("vhdx states: what is not stored is zeros, whatever offset the entry keeps") {
  for (const uint8_t state : States{0, 1, 2, 3, 5}) {
    INFO("state ", int{state});
    VhdxBuilder builder = dynamic();
    builder.blocks[1].state = state;
    const Opened disk = open(builder.build());
    CHECK(run_at(disk, 0) == std::pair(Kind::kZero, uint64_t{3 * kBlock}));
  }
}

TEST_CASE("vhdx states: those that no such image may have are refused") {
  for (const uint8_t state : States{4, 7}) {
    VhdxBuilder builder = dynamic();
    builder.blocks[1].state = state;
    const Opened opened = open(builder.build());
    CHECK(opened.error() == ErrorKind::kMalformed);
    CHECK(opened.says(fmt::format("BAT entry 1 has the state {}", state)));
  }
}

TEST_CASE("vhdx: blocks that follow each other in the file are one extent") {
  VhdxBuilder builder = dynamic();
  builder.blocks[2] = {.data = pattern(kBlock, 2)};
  const Opened disk = open(builder.build());
  CHECK(run_at(disk, kBlock) == std::pair(Kind::kData, uint64_t{3 * kBlock}));
  Bytes image = builder.build();
  const auto first = load_le<uint64_t>(image, VhdxBuilder::kBatAt + 8);
  store_le<uint64_t>(image, VhdxBuilder::kBatAt + 8,
                     load_le<uint64_t>(image, VhdxBuilder::kBatAt + 16));
  store_le<uint64_t>(image, VhdxBuilder::kBatAt + 16, first);
  CHECK(run_at(open(image), kBlock) == std::pair(Kind::kData, uint64_t{kBlock}));
}

TEST_CASE("vhdx: the entries of a second chunk lie behind a sector bitmap's") {
  for (const uint32_t sector : {512u, 4096u}) {
    VhdxBuilder builder;
    builder.block_size = 4 << 20;
    builder.sector = sector;
    const uint64_t ratio = (uint64_t{1} << 23) * sector / builder.block_size;
    builder.size = (2 * ratio + 1) * builder.block_size;
    for (const uint64_t block : {ratio - 1, ratio, 2 * ratio}) {
      builder.blocks[block] = {.data = pattern(builder.block_size, static_cast<uint32_t>(block))};
    }
    const Opened disk = open(builder.build());
    for (const auto& [number, block] : builder.blocks) {
      const Bytes got = read(disk, number * builder.block_size, block.data.size()).value();
      CHECK(got == block.data);
    }
    CHECK(run_at(disk, 0).first == Kind::kZero);
    // Two of them lie one behind the other on the disk and in the file, but not in the BAT; of
    // larger chunks, they are in two slices of it.
    const uint64_t together = sector == 512 ? 2 : 1;
    CHECK(run_at(disk, (ratio - 1) * builder.block_size) ==
          std::pair(Kind::kData, together * builder.block_size));
  }
}

TEST_CASE("vhdx: a last block that is cut where the disk ends is whole") {
  VhdxBuilder builder = dynamic();
  builder.size = 3 * kBlock + 512;
  Bytes image = builder.build();
  image.resize(builder.block_offset(3) + 512);
  CHECK(read(open(image), 3 * kBlock, 512).value() ==
        Bytes(builder.blocks[3].data.begin(), builder.blocks[3].data.begin() + 512));
  image.resize(image.size() - 1);
  CHECK(open(image).error() == ErrorKind::kTruncated);
}

TEST_CASE("vhdx differencing: unset bits are the parent's sectors, set ones the child's") {
  VhdxBuilder child = differencing();
  // The edges of bytes and of 64-bit words, least significant bit first.
  child.blocks[1] = {.state = BatEntry::kPartiallyPresent,
                     .data = pattern(kBlock, 11),
                     .sectors = {0, 7, 8, 9, 63, 64, 127, 200, 2047}};
  child.blocks[3] = {.data = pattern(kBlock, 13)};
  const Opened disk = open(child.build(), parent_files());
  Bytes expected = content_of(dynamic());
  for (const uint64_t sector : child.blocks[1].sectors) {
    std::memcpy(expected.data() + kBlock + sector * 512, child.blocks[1].data.data() + sector * 512,
                512);
  }
  std::memcpy(expected.data() + 3 * kBlock, child.blocks[3].data.data(), kBlock);
  CHECK(read_all(disk) == expected);
  CHECK(run_at(disk, 0) == std::pair(Kind::kParent, uint64_t{kBlock}));
  CHECK(run_at(disk, kBlock + 100) == std::pair(Kind::kData, uint64_t{412}));
  CHECK(run_at(disk, kBlock + 512) == std::pair(Kind::kParent, uint64_t{6 * 512}));
  CHECK(run_at(disk, kBlock + 7 * 512) == std::pair(Kind::kData, uint64_t{3 * 512}));
  CHECK(run_at(disk, kBlock + 63 * 512) == std::pair(Kind::kData, uint64_t{2 * 512}));
  CHECK(run_at(disk, kBlock + 201 * 512) == std::pair(Kind::kParent, uint64_t{1846 * 512}));
  CHECK(run_at(disk, kBlock + 201 * 512, 700) == std::pair(Kind::kParent, uint64_t{700}));
}

TEST_CASE("vhdx differencing: a sector bitmap counts the sectors of its whole chunk") {
  VhdxBuilder child = differencing();
  child.sector = 4096;
  child.size = uint64_t{3} << 35;  // three chunks
  child.locator[1].second = "large.vhdx";
  const uint64_t block = 2 * 32768 + 5;
  child.blocks[block] = {
      .state = BatEntry::kPartiallyPresent, .data = pattern(kBlock, 1), .sectors = {3, 4, 5}};
  VhdxBuilder parent;
  parent.sector = 4096;
  MemoryFiles files;
  files.add("large.vhdx", parent.build());
  const Opened disk = open(child.build(), files);
  CHECK(run_at(disk, block * kBlock) == std::pair(Kind::kParent, uint64_t{3 * 4096}));
  CHECK(run_at(disk, block * kBlock + 3 * 4096) == std::pair(Kind::kData, uint64_t{3 * 4096}));
}

TEST_CASE("vhdx differencing: zeroed, unmapped and undefined blocks hide the parent's") {
  for (const uint8_t state : States{1, 2, 3, 5}) {
    VhdxBuilder child = differencing();
    child.blocks[1] = {.state = state};
    const Opened disk = open(child.build(), parent_files());
    CHECK(read(disk, kBlock, kBlock).value() == Bytes(kBlock));
    CHECK(run_at(disk, kBlock) == std::pair(Kind::kZero, uint64_t{kBlock}));
  }
}

TEST_CASE("vhdx differencing: a partly present block without its sector bitmap is refused") {
  VhdxBuilder child = differencing();
  child.blocks[1] = {.state = BatEntry::kPartiallyPresent, .data = pattern(kBlock, 1)};
  const size_t bitmap_entry = VhdxBuilder::kBatAt + 4096 * 8;
  Bytes image = child.build();
  REQUIRE((load_le<uint64_t>(image, bitmap_entry) & 7) == 6);
  for (const uint64_t entry : {uint64_t{0}, uint64_t{6}, child.bitmaps_at() | 7,
                               uint64_t{VhdxBuilder::kBatAt} | 6, child.block_offset(1) | 6}) {
    store_le<uint64_t>(image, bitmap_entry, entry);
    INFO("entry ", entry);
    CHECK(open(image, parent_files()).error() == ErrorKind::kMalformed);
  }
  store_le<uint64_t>(image, bitmap_entry, (child.bitmaps_at() + kBlock) | 6);
  CHECK(open(image, parent_files()).error() == ErrorKind::kTruncated);
}

TEST_CASE("vhdx: a parent locator in an image without a parent is refused") {
  VhdxBuilder builder = dynamic();
  const Bytes locator = parent_locator({{"parent_linkage", "{}"}});
  builder.more_items.push_back({.guid = "A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", .data = locator});
  CHECK(open(builder.build()).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhdx differencing: the parent must be the one that the child was made on") {
  VhdxBuilder child = differencing();
  CHECK(open(child.build(), parent_files()));
  CHECK(open(child.build()).error() == ErrorKind::kMalformed);
  child.locator[0].second = "{11111111-2222-3333-4444-555555555556}";
  CHECK(open(child.build(), parent_files()).error() == ErrorKind::kMalformed);
  child.locator.push_back({"parent_linkage2", "{11111111-2222-3333-4444-555555555555}"});
  CHECK(open(child.build(), parent_files()));
  child.locator[2].second = "{11111111-2222-3333-4444-555555555557}";
  CHECK(open(child.build(), parent_files()).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhdx differencing: a parent with other logical sectors is refused") {
  VhdxBuilder child = differencing();
  child.sector = 4096;
  CHECK(open(child.build(), parent_files()).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhdx: what needs a table that is not in memory would block") {
  VhdxBuilder child = differencing();
  child.size = uint64_t{8} << 30;
  for (const uint64_t block : {1u, 4095u}) {
    child.blocks[block] = {
        .state = BatEntry::kPartiallyPresent, .data = pattern(kBlock, 1), .sectors = {1}};
  }
  const Opened disk = open(child.build(), parent_files());
  const Reader& reader = disk.reader();
  const auto waiting = reader.map(4095 * uint64_t{kBlock}, 512, MapFor::kReadNow);
  REQUIRE_FALSE(waiting);
  CHECK(waiting.error().kind == ErrorKind::kWouldBlock);
  CHECK(reader.map(4095 * uint64_t{kBlock}, 512, MapFor::kRead));
  CHECK(reader.map(4095 * uint64_t{kBlock}, 512, MapFor::kReadNow).value().kind == Kind::kParent);
}

TEST_CASE("vhdx: 64 TiB open with a handful of reads, and no more is read than is needed") {
  VhdxBuilder builder;
  builder.size = uint64_t{64} << 40;
  builder.block_size = 256 << 20;
  builder.blocks[262143] = {.data = pattern(1 << 20, 9)};
  Bytes image = builder.build();
  // The BAT of 262144 + 16383 entries reaches behind its first MiB.
  const size_t moved = image.size();
  image.resize(moved + (3 << 20));
  std::copy_n(image.begin() + VhdxBuilder::kBatAt, 1 << 20,
              image.begin() + static_cast<std::ptrdiff_t>(moved));
  set_in_region_tables<uint64_t>(image, 32, moved);
  set_in_region_tables<uint32_t>(image, 40, 3 << 20);
  const Geometry geometry{.virtual_disk_size = builder.size, .block_size = builder.block_size};
  store_le<uint64_t>(image, moved + geometry.entry_of(262143) * 8,
                     uint64_t{VhdxBuilder::kBlocksAt} | 6);
  const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(image));
  const Opened disk = open(source);
  CHECK(source->reads() < 16);
  CHECK(disk->size() == builder.size);
  CHECK(run_at(disk, 0).first == Kind::kZero);
  CHECK(run_at(disk, builder.size - builder.block_size).first == Kind::kData);
}

TEST_CASE("vhdx: no failed read becomes data or another image") {
  VhdxBuilder child = differencing();
  child.blocks[1] = {
      .state = BatEntry::kPartiallyPresent, .data = pattern(kBlock, 1), .sectors = {1, 2, 3}};
  const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(child.build()));
  const Opened whole = open(source, parent_files());
  const Bytes expected = read_all(whole);
  const auto reads = static_cast<int64_t>(source->reads());
  REQUIRE(reads > 8);
  for (int64_t nth = 0; nth < reads; ++nth) {
    source->fail_read(nth);
    const Opened opened = open(source, parent_files());
    if (!opened) {
      CHECK(opened.error() == ErrorKind::kIo);
      continue;
    }
    const auto got = read(opened, 0, expected.size());
    if (got) CHECK(*got == expected);
  }
}

TEST_CASE("vhdx: the probe knows the signature, and one that has a wrong byte") {
  Bytes head = dynamic().build();
  head.resize(ProbeInput::kHeadBytes);
  const auto verdict = [&] {
    return probe_vhdx({.head = head, .tail = head, .size = head.size()}).verdict;
  };
  CHECK(verdict() == ProbeVerdict::kYes);
  head[2] ^= std::byte{1};
  CHECK(verdict() == ProbeVerdict::kDamaged);
  head[3] ^= std::byte{1};
  CHECK(verdict() == ProbeVerdict::kNo);
  head.resize(7);
  CHECK(verdict() == ProbeVerdict::kNo);
}

}  // namespace
}  // namespace underlay::vhdx::test
