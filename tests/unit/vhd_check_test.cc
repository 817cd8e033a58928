// What underlay-img check finds in VHDs: one wrong field for each rule.
#include "formats/vhd/vhd_check.h"

#include <doctest/doctest.h>

#include <functional>

#include "tests/support/inspected.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

using underlay::test::check_as;
using underlay::test::Checked;
using underlay::test::checked_by;

constexpr size_t kBlockBytes = 512 + kBlock;  // with the sector bitmap

std::string check(
    const VhdBuilder& builder, const std::function<void(Bytes&)>& change = [](Bytes&) {}) {
  Bytes image = builder.build();
  change(image);
  const Checked checked = check_as("vpc", image);
  CHECK(checked.done);
  return checked.codes;
}
std::string with_entry(uint32_t block, uint32_t sector, const VhdBuilder& builder = dynamic()) {
  return check(builder, [&](Bytes& image) {
    store_be<uint32_t>(image, VhdBuilder::kTableAt + block * 4, sector);
  });
}
uint32_t sector_of(uint32_t block, const VhdBuilder& builder = dynamic()) {
  return static_cast<uint32_t>(builder.block_offsets().at(block) / 512);
}

TEST_CASE("vhd check: sound images are clean, and their blocks are counted") {
  const Checked checked = check_as("vpc", dynamic().build());
  CHECK(checked.done);
  CHECK(checked.codes.empty());
  CHECK(checked.totals.total == 6);
  CHECK(checked.totals.allocated == 3);
  CHECK(checked.totals.fragmented == 0);
  CHECK(checked.totals.image_end_offset == dynamic().block_offsets().at(5) + kBlockBytes);
  CHECK(check(differencing()).empty());
  CHECK(check(with_batmap()).empty());
  VhdBuilder fixed;
  fixed.disk_type = 2;
  fixed.current_size = 4096;
  fixed.fixed_data = pattern(4096, 1);
  CHECK(check(fixed).empty());
  fixed.fixed_data.resize(8192);
  CHECK(check(fixed) == "(space-behind-disk)");
  CHECK(check(dynamic(), [](Bytes& image) { image.resize(image.size() + 4096); }) ==
        "(footer-before-end)");
}

TEST_CASE("vhd check: blocks where none may lie") {
  CHECK(with_entry(0, 0) == "block-in-metadata");
  CHECK(with_entry(0, 3) == "block-in-metadata");
  CHECK(with_entry(0, static_cast<uint32_t>(dynamic().build().size() / 512 - 1)) ==
        "block-in-footer");
  CHECK(with_entry(0, 1 << 30) == "block-beyond-end");
  CHECK(with_entry(1, 1 << 30) == "block-beyond-end leak");  // where it was before
}

TEST_CASE("vhd check: blocks over each other, by start and by sector") {
  CHECK(with_entry(0, sector_of(3)) == "block-twice");
  CHECK(with_entry(0, sector_of(3) + 1) == "blocks-overlap blocks-overlap (sector-bits-ignored)");
  CHECK(with_entry(0, sector_of(3) - 8) == "blocks-overlap blocks-overlap (sector-bits-ignored)");
  // The last block's end is not the disk's.
  VhdBuilder builder = dynamic();
  builder.blocks.erase(3);
  CHECK(check(builder, [&](Bytes& image) {
          const uint32_t last = sector_of(5, builder);
          image.insert(image.end() - 512, kBlock / 2 + 512, std::byte{0xff});
          image[(last + 5) * 512] = std::byte{0xff};
          store_be<uint32_t>(image, VhdBuilder::kTableAt, last + 5);
        }) == "");
}

TEST_CASE("vhd check: room for whole blocks that belongs to nothing is a leak") {
  Bytes image = dynamic().build();
  store_be<uint32_t>(image, VhdBuilder::kTableAt + 4, 0xffffffff);
  const Checked checked = check_as("vpc", image);
  CHECK(checked.codes == "leak");
  CHECK(checked.leaks == 1);
  CHECK(checked.findings[0].offset == dynamic().block_offsets().at(1));
  for (const uint32_t block : {1u, 3u, 5u}) {
    store_be<uint32_t>(image, VhdBuilder::kTableAt + block * 4, 0xffffffff);
  }
  CHECK(check_as("vpc", image).leaks == 3);
  const auto behind = [&](size_t bytes) {
    return check(dynamic(),
                 [&](Bytes& longer) { longer.insert(longer.end() - 512, bytes, std::byte{1}); });
  };
  CHECK(behind(kBlockBytes - 512) == "");
  CHECK(behind(kBlockBytes) == "leak");
}

TEST_CASE("vhd check: damaged copies are damage, what differs without a meaning is not") {
  CHECK(check(dynamic(), [](Bytes& image) { image[100] ^= std::byte{1}; }) ==
        "footer-copy-damaged");
  CHECK(check(dynamic(), [](Bytes& image) { image[image.size() - 400] ^= std::byte{1}; }) ==
        "footer-damaged");
  CHECK(check(dynamic(), [](Bytes& image) { image.resize(image.size() - 512); }) ==
        "footer-missing");
  CHECK(check(dynamic(), [](Bytes& image) {
          std::fill(image.end() - 512, image.end(), std::byte{0xc7});
        }) == "(footer-overwritten)");
  CHECK(check(dynamic(), [](Bytes& image) {
          store_be<uint32_t>(image, 32, 7);
          seal_footer(image, 0);
        }) == "footers-differ (footers-not-identical)");
  CHECK(check(dynamic(), [](Bytes& image) {
          image[84] = std::byte{1};
          seal_footer(image, 0);
        }) == "(footers-not-identical)");
}

TEST_CASE("vhd check: header, batmap and locators") {
  CHECK(check(dynamic(), [](Bytes& image) { image[VhdBuilder::kHeaderAt + 900] = std::byte{1}; }) ==
        "header-checksum-wrong");
  CHECK(check(dynamic(), [](Bytes& image) { set_in_header<uint32_t>(image, 28, 5); }) ==
        "size-beyond-capacity");
  const VhdBuilder tapdisk = with_batmap();
  CHECK(check(tapdisk, [&](Bytes& image) {
          image[tapdisk.batmap_header_at() + 600] ^= std::byte{1};
        }) == "batmap-unusable");
  // Whoever has the key can make use of it: it is whole.
  CHECK(check(tapdisk, [&](Bytes& image) {
          image[tapdisk.batmap_header_at() + 29] = std::byte{1};
        }) == "(encrypted)");
  CHECK(check(differencing(), [](Bytes& image) {
          set_in_header<uint64_t>(image, 576 + 16, VhdBuilder::kTableAt);
        }) == "(parent-locator-unusable) structures-overlap");
  CHECK(check(dynamic(), [](Bytes& image) { set_in_footers<uint32_t>(image, 60, 5); }) ==
        "(type-unsupported)");
}

TEST_CASE("vhd check: data in sectors without a bit, where only some readers heed the bits") {
  VhdBuilder builder = dynamic();
  builder.blocks[1].bitmap[0] = std::byte{0xfe};
  builder.blocks[5].bitmap[0] = std::byte{0xf0};  // behind the end of the disk
  CHECK(check(builder) == "(sector-bits-ignored)");
  std::fill_n(builder.blocks[1].data.begin() + 7 * 512, 512, std::byte{0});
  CHECK(check(builder).empty());
  builder.blocks[5].bitmap[0] = std::byte{0x70};
  CHECK(check(builder) == "(sector-bits-ignored)");
  builder.creator = std::string("tap\0", 4);
  builder.creator_version = 0x00010001;
  CHECK(check(builder).empty());
}

TEST_CASE("vhd check: entries behind the disk are noticed when they are not free") {
  VhdBuilder builder = dynamic();
  builder.max_table_entries = 9;
  CHECK(check(builder).empty());
  CHECK(with_entry(8, 3, builder) == "(blocks-behind-disk)");
  CHECK(with_entry(8, sector_of(3, builder), builder) == "(blocks-behind-disk)");
  CHECK(with_entry(8, 1 << 30, builder) == "(blocks-behind-disk)");
  // Their room is not lost: the disk's children may show them.
  const auto moved = [&](uint32_t to) {
    return check(builder, [&](Bytes& image) {
      const auto entry = load_be<uint32_t>(image, VhdBuilder::kTableAt + 4);
      store_be<uint32_t>(image, VhdBuilder::kTableAt + 4, 0xffffffff);
      store_be<uint32_t>(image, VhdBuilder::kTableAt + to * 4, entry);
    });
  };
  CHECK(moved(2).empty());
  CHECK(moved(8) == "(blocks-behind-disk)");
}

TEST_CASE("vhd check: what cannot be read is told, and nothing is made of it") {
  const auto with_bad = [](uint64_t offset) {
    const auto source =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(dynamic().build()));
    source->fail_range(offset, 1);
    const Checked checked = check_as("vpc", source);
    CHECK(checked.done);
    return checked.codes;
  };
  CHECK(with_bad(VhdBuilder::kTableAt) == "unreadable!");
  CHECK(with_bad(dynamic().block_offsets().at(3)) == "unreadable!");
  CHECK(check_as("vpc", Bytes(4096)).done.error().kind == ErrorKind::kMalformed);
}

TEST_CASE("vhd check: the operator may break it off") {
  const underlay::test::Inspection inspection(dynamic().build());
  const auto done = checked_by(inspection, check_vhd, /*stops=*/true).done;
  REQUIRE_FALSE(done);
  CHECK(done.error().sys_errno == EINTR);
}

}  // namespace
}  // namespace underlay::vhd::test
