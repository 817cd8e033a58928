// What underlay-img check finds in VDIs: one wrong field for each rule.
#include "formats/vdi/vdi_check.h"

#include <doctest/doctest.h>

#include "formats/inspection/block_places.h"
#include "formats/vdi/vdi_layout.h"
#include "io/store_le.h"
#include "tests/support/inspected.h"
#include "tests/support/vdi_disks.h"

namespace underlay::vdi::test {
namespace {

using underlay::test::Checked;
using underlay::test::checked_by;

Checked check(const Bytes& image) { return underlay::test::check_as("vdi", image); }

template <class T>
std::string with_field(size_t offset, T value) {
  Bytes image = dynamic().build();
  store_le<T>(image, offset, value);
  return check(image).codes;
}
std::string with_entry(uint32_t block, uint32_t entry) {
  return with_field<uint32_t>(VdiBuilder::kMapAt + block * 4, entry);
}

TEST_CASE("vdi check: sound images are clean, and their blocks are counted") {
  const Checked checked = check(dynamic().build());
  CHECK(checked.done);
  CHECK(checked.codes.empty());
  CHECK(checked.totals.total == 6);
  CHECK(checked.totals.allocated == 3);
  CHECK(checked.totals.fragmented == 1);  // 2, 0, 1
  CHECK(checked.totals.image_end_offset == VdiBuilder::kDataAt + 3 * kBlock);
  CHECK(check(differencing().build()).codes.empty());
  VdiBuilder extra = dynamic();
  extra.block_extra = 512;
  CHECK(check(extra.build()).codes.empty());
  Bytes cut = dynamic().build();
  cut.resize(VdiBuilder::kDataAt + 3 * kBlock);
  VdiBuilder last = dynamic();
  last.entries = {{0, 0}, {1, 1}, {5, 2}};
  cut = last.build();
  cut.resize(cut.size() - kBlock / 2);  // the last block ends with the disk
  CHECK(check(cut).codes.empty());
}

TEST_CASE("vdi check: entries that are no stored block, or lead beyond the end") {
  CHECK(with_entry(1, 3) == "block-beyond-allocated leak");
  Bytes image = dynamic().build();
  image.resize(image.size() - 1);
  CHECK(check(image).codes == "block-beyond-end");
  image.resize(VdiBuilder::kDataAt);
  CHECK(check(image).codes == "block-beyond-end block-beyond-end block-beyond-end");
}

TEST_CASE("vdi check: blocks that are stored twice") {
  CHECK(with_entry(3, 2) == "leak block-twice");
  CHECK(with_entry(0, 2) == "block-twice");
  Bytes image = dynamic().build();
  for (uint32_t block = 0; block < 6; ++block) {
    store_le<uint32_t>(image, VdiBuilder::kMapAt + block * 4, 1);
  }
  CHECK(check(image).codes ==
        "leak block-twice block-twice block-twice block-twice block-twice leak");
}

TEST_CASE("vdi check: stored blocks that no entry names are leaks, counted one by one") {
  VdiBuilder builder = dynamic();
  builder.entries = {{1, 2}};
  const Checked checked = check(builder.build());
  CHECK(checked.codes == "leak");
  CHECK(checked.leaks == 2);
  CHECK(checked.findings[0].offset == VdiBuilder::kDataAt);
  CHECK(with_field<uint32_t>(388, 2) == "block-beyond-allocated (space-behind-blocks)");
}

TEST_CASE("vdi check: what lies behind the disk and behind the blocks is noticed") {
  VdiBuilder builder = dynamic();
  builder.blocks_in_image = 8;
  builder.entries[7] = 3;
  builder.stored.push_back(pattern(kBlock, 7));
  CHECK(check(builder.build()).codes == "(blocks-behind-disk)");
  builder.entries[7] = 2;  // nobody's data
  builder.stored.pop_back();
  CHECK(check(builder.build()).codes == "(blocks-behind-disk)");
  Bytes longer = dynamic().build();
  longer.resize(longer.size() + kBlock - 1);
  CHECK(check(longer).codes.empty());
  longer.resize(longer.size() + 1);
  CHECK(check(longer).codes == "(space-behind-blocks)");
}

TEST_CASE("vdi check: the header's rules; what is not served is no damage") {
  CHECK(with_field<uint32_t>(76, 3) == "(type-undo)");
  CHECK(with_field<uint32_t>(80, 0x200) == "(flags-unknown)");
  CHECK(with_field<uint32_t>(424, 1) == "link-unexpected");
  CHECK(with_field<uint32_t>(388, 7) == "allocated-beyond-blocks leak");
  CHECK(with_field<uint32_t>(376, 0) == "block-size-wrong size-beyond-blocks");
  CHECK(with_field<uint32_t>(340, 0x10000000) == "data-in-map map-beyond-end");
  CHECK(with_field<uint64_t>(368, ~uint64_t{0}).starts_with("size-beyond-blocks"));
  Bytes image = dynamic().build();
  store_le<uint32_t>(image, 68, 2);
  CHECK(check(image).done.error().kind == ErrorKind::kUnsupported);
  image[64] = std::byte{0};
  CHECK(check(image).done.error().kind == ErrorKind::kMalformed);
}

TEST_CASE("vdi check: numbers whose products do not fit lead nowhere") {
  Bytes image = dynamic().build();
  store_le<uint32_t>(image, 376, 1u << 31);
  store_le<uint32_t>(image, 380, 1u << 31);
  store_le<uint32_t>(image, 388, 6);
  store_le<uint32_t>(image, VdiBuilder::kMapAt, 5);
  const Checked checked = check(image);
  CHECK(checked.done);
  CHECK(checked.codes.find("block-beyond-end") != std::string::npos);
}

// A file whose bytes are in memory as far as they are not zeros.
class ZerosBehind final : public Source {
 public:
  ZerosBehind(Bytes head, uint64_t size) : head_(std::move(head)), size_(size) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset >= head_.size()) return {};
    const ByteSpan bytes = ByteSpan(head_).subspan(static_cast<size_t>(offset));
    std::copy_n(bytes.begin(), std::min(bytes.size(), out.size()), out.begin());
    return {};
  }

 private:
  Bytes head_;
  uint64_t size_;
  std::string name_ = "zeros";
};

TEST_CASE("vdi check: of too many blocks it is told that overlaps were not looked for") {
  constexpr uint32_t kBlocks = kMaxPasses * kBlocksInAPass + 1;
  const uint64_t data_at = VdiBuilder::kMapAt + uint64_t{kBlocks} * 4 + 508;
  Bytes head = dynamic().build();
  head.resize(VdiBuilder::kMapAt);
  store_le<uint32_t>(head, 344, static_cast<uint32_t>(data_at));
  store_le<uint64_t>(head, 368, uint64_t{kBlocks} * kBlock);
  store_le<uint32_t>(head, 384, kBlocks);
  store_le<uint32_t>(head, 388, 1);
  const auto all_at_block_0 = std::make_shared<ZerosBehind>(head, data_at + kBlock);
  const Checked checked = underlay::test::check_as("vdi", all_at_block_0);
  CHECK(checked.done);
  CHECK(checked.codes == "too-many-blocks!");
  CHECK(checked.totals.allocated == kBlocks);
  CHECK_FALSE(checked.totals.image_end_offset);
}

TEST_CASE("vdi check: what cannot be read is told, and nothing is made of it") {
  const auto source =
      std::make_shared<FaultySource>(std::make_shared<MemorySource>(dynamic().build()));
  source->fail_range(VdiBuilder::kMapAt, 4);
  const Checked checked = underlay::test::check_as("vdi", source);
  CHECK(checked.done);
  CHECK(checked.codes == "unreadable!");
  CHECK(checked.leaks == 0);
}

TEST_CASE("vdi check: the operator may break it off") {
  const underlay::test::Inspection inspection(dynamic().build());
  const auto done = checked_by(inspection, check_vdi, /*stops=*/true).done;
  REQUIRE_FALSE(done);
  CHECK(done.error().sys_errno == EINTR);
}

}  // namespace
}  // namespace underlay::vdi::test
