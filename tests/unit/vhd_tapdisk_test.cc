// VHDs as tapdisk (blktap of Xen) wrote them, version by version, and what it alone did.
#include <doctest/doctest.h>

#include <cstring>
#include <functional>

#include "formats/vhd/vhd.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

using Kind = Extent::Kind;

constexpr uint32_t kVersion01 = 0x00000001;
constexpr uint32_t kVersion11 = 0x00010001;
constexpr uint32_t kVersion12 = 0x00010002;
constexpr uint32_t kVersion13 = 0x00010003;

VhdBuilder by_tapdisk(VhdBuilder builder, uint32_t version) {
  builder.creator = std::string("tap\0", 4);
  builder.creator_version = version;
  return builder;
}

// The byte with its bits in the other order.
std::byte reversed(std::byte byte) {
  std::byte result{0};
  for (int bit = 0; bit < 8; ++bit) {
    if ((byte & (std::byte{1} << bit)) != std::byte{0}) result |= std::byte{0x80} >> bit;
  }
  return result;
}

TEST_CASE("vhd tapdisk 0.1: a sector bitmap begins with the least significant bit of a byte") {
  VhdBuilder child = by_tapdisk(differencing(), kVersion01);
  for (auto& [number, block] : child.blocks) block.bitmap[0] = reversed(block.bitmap[0]);
  const Opened disk = open(child.build(), parent_files());
  CHECK(read_all(disk) == differencing_content());
  CHECK(disk.disk->warnings.empty());
  for (const uint32_t version : {0u, kVersion11}) {  // these have it as all others
    child.creator_version = version;
    CHECK(read_all(open(child.build(), parent_files())) != differencing_content());
  }
  child.creator_version = kVersion01;
  child.creator = "win ";
  CHECK(read_all(open(child.build(), parent_files())) != differencing_content());
}

TEST_CASE("vhd tapdisk 0.1: runs go on across the words of a bitmap") {
  VhdBuilder child = by_tapdisk(differencing(), kVersion01);
  child.block_size = 256 << 10;  // 512 sectors, 8 words
  child.blocks.clear();
  child.current_size = 256 << 10;
  Bytes bitmap(64);
  for (size_t sector = 61; sector < 450; ++sector) {
    bitmap[sector / 8] |= static_cast<std::byte>(1u << (sector % 8));
  }
  child.blocks[0] = {bitmap, pattern(256 << 10, 5)};
  const Opened disk = open(child.build(), parent_files());
  const Reader& reader = *disk->layers().front().reader;
  const auto run = [&](uint64_t sector) {
    const Extent extent = reader.map(sector * 512, (512 - sector) * 512, MapFor::kRead).value();
    return std::pair(extent.kind, extent.length / 512);
  };
  CHECK(run(0) == std::pair(Kind::kParent, uint64_t{61}));
  CHECK(run(61) == std::pair(Kind::kData, uint64_t{389}));
  CHECK(run(449) == std::pair(Kind::kData, uint64_t{1}));
  CHECK(run(450) == std::pair(Kind::kParent, uint64_t{62}));
}

TEST_CASE("vhd tapdisk 0.1: the parent's name is in the machine's byte order, behind a mark") {
  VhdBuilder child = by_tapdisk(differencing(), kVersion01);
  for (auto& [number, block] : child.blocks) block.bitmap[0] = reversed(block.bitmap[0]);
  child.locators.clear();
  child.parent_unicode_name = utf16le("parent.vhd");
  CHECK(read_all(open(child.build(), parent_files())) == differencing_content());
  const Bytes mark = {std::byte{0xff}, std::byte{0xfe}};
  child.parent_unicode_name.insert(child.parent_unicode_name.begin(), mark.begin(), mark.end());
  CHECK(read_all(open(child.build(), parent_files())) == differencing_content());
}

TEST_CASE("vhd tapdisk dynamic: sectors of unset bits are zeros, whatever a device held there") {
  VhdBuilder builder = by_tapdisk(dynamic(), kVersion13);
  builder.batmap = Bytes(512);
  builder.blocks[1].bitmap[0] = std::byte{0x96};  // 1001 0110
  Bytes truth = content_of(builder);
  for (const size_t sector : {1u, 2u, 4u, 7u}) {
    std::memset(truth.data() + kBlock + sector * 512, 0, 512);
  }
  const Opened disk = open(builder.build());
  CHECK(read_all(disk) == truth);
  const Extent unset = disk->map(kBlock + 512, kBlock, MapFor::kRead).value();
  CHECK(unset.kind == Kind::kZero);
  CHECK(unset.reserved);
  CHECK(unset.length == 2 * 512);

  (*builder.batmap)[0] = std::byte{0x40};  // block 1 is full
  CHECK(read_all(open(builder.build())) == content_of(builder));
}

TEST_CASE("vhd tapdisk: a null parent_unique_id means a raw parent, and it is told") {
  VhdBuilder child = by_tapdisk(differencing(), kVersion12);
  child.parent_id = std::byte{0};
  child.batmap = Bytes(512);
  // The parent's bytes are a VHD's: they must be shown as they are. It is shorter than the child.
  VhdBuilder small;
  small.disk_type = 2;
  small.current_size = 3 * kBlock;
  small.fixed_data = pattern(small.current_size, 7);
  Bytes truth = small.build();
  REQUIRE(truth.size() == 3 * kBlock + 512);
  MemoryFiles files;
  files.add("parent.vhd", truth);
  truth.resize(kSize);
  for (const size_t sector : {8u, 11u, 13u, 14u, 16u, 17u, 18u, 19u, 20u, 21u, 22u, 23u}) {
    const Bytes& data = child.blocks.at(static_cast<uint32_t>(sector / 8)).data;
    std::memcpy(truth.data() + sector * 512, data.data() + sector % 8 * 512, 512);
  }
  const Opened disk = open(child.build(), files);
  CHECK(read_all(disk) == truth);
  REQUIRE(disk.disk->warnings.size() == 1);
  CHECK(disk.disk->warnings[0].find("raw disk") != std::string::npos);
}

TEST_CASE("vhd tapdisk: an encrypted image is refused, whatever else its batmap says") {
  for (const bool child : {true, false}) {
    VhdBuilder builder = child ? with_batmap() : by_tapdisk(dynamic(), kVersion13);
    builder.batmap = Bytes(512);
    Bytes image = builder.build();
    image[builder.batmap_header_at() + 29] = std::byte{1};
    store_be<uint32_t>(image, builder.batmap_header_at() + 24, 0);  // the batmap's checksum
    const Opened opened = open(image, parent_files());
    CHECK(opened.error() == ErrorKind::kUnsupported);
    CHECK(opened.disk.error().message.find("encrypted") != std::string::npos);
  }
}

TEST_CASE("vhd batmap: versions 1.1 and 1.2 are read, in images of tapdisk 1.1 and later") {
  VhdBuilder child = with_batmap();
  const Bytes by_bitmaps = differencing_content();
  const auto shown = [&](uint32_t creator_version, uint32_t batmap_version) {
    child.creator_version = creator_version;
    child.batmap_version = batmap_version;
    return read_all(open(child.build(), parent_files()));
  };
  for (const uint32_t version : {kVersion11, kVersion12, kVersion13}) {
    CHECK(shown(version, 0x00010001) != by_bitmaps);
    CHECK(shown(version, 0x00010002) != by_bitmaps);
    CHECK(shown(version, 0x00010003) == by_bitmaps);
  }
  for (auto& [number, block] : child.blocks) block.bitmap[0] = reversed(block.bitmap[0]);
  CHECK(shown(kVersion01, 0x00010001) == by_bitmaps);
}

TEST_CASE("vhd batmap: tapdisk 1.1 may have none; where a later one has none, it is told") {
  for (const auto& [version, warnings] :
       {std::pair(kVersion11, 0u), std::pair(kVersion12, 1u), std::pair(kVersion13, 1u)}) {
    const Opened disk = open(by_tapdisk(differencing(), version).build(), parent_files());
    CHECK(read_all(disk) == differencing_content());
    CHECK(disk.disk->warnings.size() == warnings);
  }
}

TEST_CASE("vhd batmap: a set bit means that the block is full") {
  const Bytes shown = read_all(open(with_batmap().build(), parent_files()));
  CHECK(std::memcmp(shown.data(), with_batmap().blocks[0].data.data(), kBlock) == 0);
  CHECK(std::memcmp(shown.data() + kBlock, differencing_content().data() + kBlock,
                    kSize - kBlock) == 0);
}

TEST_CASE("vhd batmap: only tapdisk's counts") {
  VhdBuilder child = with_batmap();
  child.creator = "win ";
  CHECK(read_all(open(child.build(), parent_files())) == differencing_content());
}

TEST_CASE("vhd batmap: one that is not whole is not used, and told") {
  const size_t at = with_batmap().batmap_header_at();
  const auto unused = [&](const std::function<void(Bytes&)>& change) {
    Bytes image = with_batmap().build();
    change(image);
    const Opened disk = open(image, parent_files());
    CHECK(read_all(disk) == differencing_content());
    CHECK(disk.disk->warnings.size() == 1);
  };
  unused([&](Bytes& image) { image[at + 512] ^= std::byte{1}; });
  unused([&](Bytes& image) { store_be<uint64_t>(image, at + 8, ~uint64_t{0} - 511); });
  unused([&](Bytes& image) { store_be<uint64_t>(image, at + 8, 0); });
  unused([&](Bytes& image) { store_be<uint32_t>(image, at + 16, 0); });
  unused([&](Bytes& image) { store_be<uint32_t>(image, at + 16, ~0u); });
}

}  // namespace
}  // namespace underlay::vhd::test
