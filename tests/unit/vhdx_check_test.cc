// What underlay-img check finds in VHDXs: one wrong field for each rule.
#include "formats/vhdx/vhdx_check.h"

#include <doctest/doctest.h>

#include <functional>

#include "tests/support/inspected.h"
#include "tests/support/vhdx_opened.h"

namespace underlay::vhdx::test {
namespace {

using underlay::test::check_as;
using underlay::test::Checked;
using underlay::test::checked_by;

constexpr uint64_t kBlock1 = VhdxBuilder::kBlocksAt;
constexpr uint64_t kBlock3 = kBlock1 + kBlock;

std::string check(
    const VhdxBuilder& builder, const std::function<void(Bytes&)>& change = [](Bytes&) {}) {
  Bytes image = builder.build();
  change(image);
  const Checked checked = check_as("vhdx", image);
  CHECK(checked.done);
  return checked.codes;
}
std::string with_entry(uint64_t number, uint64_t entry, const VhdxBuilder& builder = dynamic()) {
  return check(builder, [&](Bytes& image) {
    store_le<uint64_t>(image, VhdxBuilder::kBatAt + number * 8, entry);
  });
}

// A child with a block that is partly its own.
VhdxBuilder partial() {
  VhdxBuilder builder = differencing();
  builder.blocks[1] = {.state = 7, .data = pattern(kBlock, 1), .sectors = {0, 5}};
  builder.blocks[2] = {.data = pattern(kBlock, 2)};
  return builder;
}
constexpr uint64_t kBitmapEntry = 4096;  // of blocks of 1 MiB and sectors of 512 bytes

TEST_CASE("vhdx check: sound images are clean, and their blocks are counted") {
  const Checked checked = check_as("vhdx", dynamic().build());
  CHECK(checked.done);
  CHECK(checked.codes.empty());
  CHECK(checked.totals.total == 4);
  CHECK(checked.totals.allocated == 2);
  CHECK(checked.totals.fragmented == 0);
  CHECK(checked.totals.image_end_offset == kBlock3 + kBlock);
  const Checked child = check_as("vhdx", partial().build());
  CHECK(child.codes.empty());
  CHECK(child.totals.allocated == 2);
  CHECK(child.totals.image_end_offset == partial().bitmaps_at() + kSectorBitmapBytes);
}

TEST_CASE("vhdx check: states that payload blocks cannot have") {
  for (const uint64_t state : {1u, 2u, 3u, 5u}) CHECK(with_entry(0, state).empty());
  CHECK(with_entry(0, 4) == "block-state-wrong");
  CHECK(with_entry(0, kBlock1 | 7) == "block-state-wrong");
}

TEST_CASE("vhdx check: blocks where none may lie") {
  CHECK(with_entry(0, 6) == "block-in-headers");
  CHECK(with_entry(0, VhdxBuilder::kLogAt | 6) == "block-in-structure");
  CHECK(with_entry(0, uint64_t{1} << 40 | 6) == "block-beyond-end");
  CHECK(with_entry(0, ~uint64_t{0} << 20 | 6) == "block-beyond-end");
  CHECK(with_entry(1, kBlock1 | 8 | 6) == "block-reserved-bits (free-space)");
}

TEST_CASE("vhdx check: blocks over each other") {
  CHECK(with_entry(0, kBlock3 | 6) == "block-twice");
  VhdxBuilder large = dynamic();
  large.block_size = 2 << 20;
  large.size = 8 << 20;
  for (auto& [number, block] : large.blocks) block.data = pattern(2 << 20, 1);
  CHECK(with_entry(0, (kBlock1 + kMiB) | 6, large) == "blocks-overlap blocks-overlap");
  // A sector bitmap block over a payload block.
  CHECK(with_entry(kBitmapEntry, kBlock1 | 6, partial()) == "block-twice (free-space)");
}

TEST_CASE("vhdx check: sector bitmap blocks that are missing, misplaced or not to be") {
  CHECK(with_entry(kBitmapEntry, 0, partial()) == "bitmap-missing (free-space)");
  CHECK(with_entry(kBitmapEntry, 2, partial()) == "bitmap-missing (free-space)");
  CHECK(with_entry(kBitmapEntry, 6, partial()) == "block-in-headers (free-space)");
  VhdxBuilder without = differencing();
  CHECK(check(without).empty());
  CHECK(with_entry(kBitmapEntry, 3, without) == "bitmap-state-wrong");
  VhdxBuilder large = dynamic();
  large.size = uint64_t{4097} << 20;
  CHECK(with_entry(kBitmapEntry, 6, large) == "(bitmap-unexpected)");
}

TEST_CASE("vhdx check: room that nothing uses is free, not lost; entries behind the disk") {
  CHECK(with_entry(1, 0) == "(free-space)");
  CHECK(check(dynamic(), [](Bytes& image) { image.resize(image.size() + kBlock); }) ==
        "(free-space)");
  CHECK(check(dynamic(), [](Bytes& image) { image.resize(image.size() + kBlock - 1); }).empty());
  CHECK(with_entry(4, kBlock1 | 6, partial()) == "(blocks-behind-disk)");
}

TEST_CASE("vhdx check: headers, region tables and metadata") {
  for (const uint64_t at : kHeadersAt) {
    CHECK(check(dynamic(), [&](Bytes& image) { image[at + 99] ^= std::byte{1}; }) ==
          "header-damaged");
  }
  for (const uint64_t at : kRegionTablesAt) {
    CHECK(check(dynamic(), [&](Bytes& image) { image[at + 99] ^= std::byte{1}; }) ==
          "region-table-damaged");
  }
  CHECK(check(dynamic(), [](Bytes& image) {
          store_le<uint32_t>(image, VhdxBuilder::kItemsAt, 3 << 20);
        }) == "block-size-wrong");
  CHECK(check(dynamic(), [](Bytes& image) {
          for (const uint64_t at : kRegionTablesAt) image[at + 99] ^= std::byte{1};
        }) == "region-tables-damaged");
  const auto with_regions = [](uint32_t count) {
    return check(dynamic(), [&](Bytes& image) { set_in_region_tables<uint32_t>(image, 8, count); });
  };
  CHECK(with_regions(2048) == "region-count-wrong");
  CHECK(with_regions(2047).starts_with("region-misplaced"));
  CHECK(with_regions(1) == "region-missing");
  // What a newer program needs is no damage, and the BAT is looked at.
  VhdxBuilder newer = dynamic();
  newer.more_items = {{"01234567-89ab-cdef-0123-456789abcdef", Bytes(8), 4}};
  CHECK(with_entry(0, 4, newer) == "(item-unknown) block-state-wrong");
}

TEST_CASE("vhdx check: without its metadata table, nothing more is looked at") {
  CHECK(check(dynamic(), [](Bytes& image) {
          image[VhdxBuilder::kMetadataAt + 7] = std::byte{'A'};
        }) == "metadata-signature-wrong");
  const auto with_items = [](uint16_t count) {
    return check(dynamic(), [&](Bytes& image) {
      store_le<uint16_t>(image, VhdxBuilder::kMetadataAt + 10, count);
    });
  };
  CHECK(with_items(2048) == "item-count-wrong");
  CHECK(with_items(0) == "item-missing item-missing item-missing");
}

TEST_CASE("vhdx check: a log is replayed before the BAT is looked at") {
  VhdxBuilder builder = dynamic();
  builder.log_guid = guid("01234567-89ab-cdef-0123-456789abcdef");
  Bytes bat(4096);
  store_le<uint64_t>(bat, 0, 4);
  const LogEntry entry{.writes = {{.offset = VhdxBuilder::kBatAt, .bytes = bat}}};
  builder.log = entry.build(*builder.log_guid);
  CHECK(check(builder) == "(log-pending) block-state-wrong (free-space)");
  builder.log[100] ^= std::byte{1};
  CHECK(check(builder) == "log-unreplayable");
}

TEST_CASE("vhdx check: a structure at the end of the numbers leads nowhere") {
  VhdxBuilder builder = dynamic();
  builder.more_regions = {{"01234567-89ab-cdef-0123-456789abcdef", ~uint64_t{0} << 20, 1 << 20, 0}};
  CHECK(check(builder).empty());
}

TEST_CASE("vhdx check: what cannot be read is told, and nothing is made of it") {
  const auto source =
      std::make_shared<FaultySource>(std::make_shared<MemorySource>(dynamic().build()));
  source->fail_range(VhdxBuilder::kBatAt, 8);
  const Checked checked = check_as("vhdx", source);
  CHECK(checked.done);
  CHECK(checked.codes == "unreadable!");
  CHECK(check_as("vhdx", Bytes(4096)).done.error().kind == ErrorKind::kMalformed);
}

TEST_CASE("vhdx check: the operator may break it off") {
  const underlay::test::Inspection inspection(dynamic().build());
  const auto done = checked_by(inspection, check_vhdx, /*stops=*/true).done;
  REQUIRE_FALSE(done);
  CHECK(done.error().sys_errno == EINTR);
}

}  // namespace
}  // namespace underlay::vhdx::test
