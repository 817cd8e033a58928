#include <doctest/doctest.h>

#include <cstring>

#include "formats/vhd/vhd.h"
#include "tests/support/vhd_disks.h"

namespace underlay::vhd::test {
namespace {

TEST_CASE("vhd dynamic: metadata is never served as data") {
  Bytes image = dynamic().build();
  const auto footer_sector = static_cast<uint32_t>(image.size() / 512 - 1);
  for (const uint32_t entry : {0u, 1u, 2u, 3u, footer_sector}) {
    store_be<uint32_t>(image, VhdBuilder::kTableAt + 4, entry);
    const Opened opened = open(image);
    INFO("entry ", entry);
    CHECK(opened.error() == ErrorKind::kMalformed);
    CHECK(opened.disk.error().message.find("BAT entry 1 ") != std::string::npos);
  }
}

TEST_CASE("vhd dynamic: a block that ends beyond the data is refused at the opening") {
  Bytes image = dynamic().build();
  const auto sectors = static_cast<uint32_t>(image.size() / 512);
  // The last block's second half is not the disk's and may be missing, but not the first.
  for (const uint32_t entry : {sectors, sectors + 1, 0x7fffffffu, 0x80000000u, 0xfffffffeu,
                               sectors - 1 - 1 - kBlock / 512 / 2 + 1}) {
    store_be<uint32_t>(image, VhdBuilder::kTableAt + 5 * 4, entry);
    INFO("entry ", entry);
    CHECK(open(image).error() == ErrorKind::kTruncated);
  }
  store_be<uint32_t>(image, VhdBuilder::kTableAt + 5 * 4, sectors - 1 - 1 - kBlock / 512 / 2);
  CHECK(open(image));
}

TEST_CASE("vhd dynamic: blocks that overlap are refused by name") {
  const VhdBuilder builder = dynamic();
  const auto sector = static_cast<uint32_t>(builder.block_offsets()[1] / 512);
  for (const uint32_t entry : {sector, sector + 1, sector + kBlock / 512}) {
    Bytes image = builder.build();
    store_be<uint32_t>(image, VhdBuilder::kTableAt + 3 * 4, entry);
    const Opened opened = open(image);
    INFO("entry ", entry);
    CHECK(opened.error() == ErrorKind::kMalformed);
    const std::string message = opened.disk.error().message;
    for (const std::string word : {"BAT entry 1 ", "entry 3 ", "overlap"}) {
      CHECK(message.find(word) != std::string::npos);
    }
  }
}

TEST_CASE("vhd dynamic: a BAT of several pieces is checked to its end") {
  VhdBuilder builder;
  builder.current_size = uint64_t{kBlock} * 600000;
  builder.cylinders = 60000;
  builder.heads = 80;
  builder.sectors_per_track = 1;
  builder.blocks[0] = {Bytes(1, std::byte{0xff}), pattern(kBlock, 1)};
  Bytes image = builder.build();
  const size_t last = VhdBuilder::kTableAt + 599999 * 4;
  CHECK(open(image));
  store_be<uint32_t>(image, last, 1);
  CHECK(open(image).error() == ErrorKind::kMalformed);
  store_be<uint32_t>(image, last, 0xfffffffe);
  CHECK(open(image).error() == ErrorKind::kTruncated);
  store_be<uint32_t>(image, last, load_be<uint32_t>(image, VhdBuilder::kTableAt));
  CHECK(open(image).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhd differencing: a block in the batmap, its header or a parent locator is refused") {
  const auto check_refused = [](const VhdBuilder& child, size_t at) {
    Bytes image = child.build();
    store_be<uint32_t>(image, VhdBuilder::kTableAt + 2 * 4, static_cast<uint32_t>(at / 512));
    const Opened opened = open(image, parent_files());
    INFO("at ", at);
    CHECK(opened.error() == ErrorKind::kMalformed);
    CHECK(opened.disk.error().message.find(fmt::format("(bytes {} ", at)) != std::string::npos);
  };
  VhdBuilder child = with_batmap();
  child.locators.clear();
  child.parent_unicode_name = utf16be("parent.vhd");
  check_refused(child, child.batmap_header_at());
  check_refused(child, child.batmap_header_at() + 512);
  const VhdBuilder with_locator = differencing();
  check_refused(with_locator, with_locator.batmap_header_at());  // the locator, without a batmap
}

TEST_CASE("vhd dynamic: offsets that wrap or leave the file are refused") {
  const auto footer_field = [](size_t offset, uint64_t value) {
    Bytes image = dynamic().build();
    set_in_footers<uint64_t>(image, offset, value);
    return open(image).error();
  };
  const auto header_field = [](size_t offset, auto value) {
    Bytes image = dynamic().build();
    set_in_header(image, offset, value);
    return open(image).error();
  };
  for (const uint64_t at : {uint64_t{0}, uint64_t{256}, uint64_t{513}, uint64_t{1} << 40,
                            ~uint64_t{0}, ~uint64_t{0} - 511, ~uint64_t{0} - 1535}) {
    INFO("data_offset ", at);
    CHECK(footer_field(16, at) == ErrorKind::kMalformed);
  }
  CHECK(footer_field(48, ~uint64_t{0}) == ErrorKind::kTruncated);
  CHECK(footer_field(48, uint64_t{1} << 63) == ErrorKind::kTruncated);
  CHECK(header_field(16, uint64_t{0}) == ErrorKind::kMalformed);
  CHECK(header_field(16, uint64_t{512}) == ErrorKind::kMalformed);
  CHECK(header_field(16, uint64_t{1024}) == ErrorKind::kMalformed);
  CHECK(header_field(16, uint64_t{1} << 40) == ErrorKind::kTruncated);
  CHECK(header_field(16, ~uint64_t{0} - 511) == ErrorKind::kTruncated);
  CHECK(header_field(28, ~uint32_t{0}) == ErrorKind::kTruncated);
  CHECK(header_field(28, uint32_t{1} << 30) == ErrorKind::kTruncated);
}

TEST_CASE("vhd dynamic: a damaged dynamic header is refused") {
  Bytes image = dynamic().build();
  image[VhdBuilder::kHeaderAt + 1000] ^= std::byte{1};
  CHECK(open(image).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhd fixed: a footer that names the header of a dynamic disk is refused") {
  Bytes image = dynamic().build();
  set_in_footers<uint32_t>(image, 60, 2);
  set_in_footers<uint64_t>(image, 48, 4096);
  CHECK(open(image).error() == ErrorKind::kMalformed);
}

TEST_CASE("vhd dynamic: a large BAT is checked where it is used") {
  VhdBuilder builder;
  builder.current_size = uint64_t{kBlock} * 1100000;
  builder.cylinders = 55000;
  builder.heads = 160;
  builder.sectors_per_track = 1;
  builder.blocks[1099999] = {Bytes(1, std::byte{0xff}), pattern(kBlock, 1)};
  Bytes image = builder.build();
  const size_t entry = VhdBuilder::kTableAt + 1099998 * 4;
  store_be<uint32_t>(image, entry, 0xfffffffe);
  const Opened disk = open(image);
  REQUIRE(disk);
  const auto beyond = read(disk, uint64_t{kBlock} * 1099998, 512);
  REQUIRE_FALSE(beyond);
  CHECK(beyond.error().kind == ErrorKind::kTruncated);
  CHECK(read(disk, uint64_t{kBlock} * 1099999, 512));
  store_be<uint32_t>(image, entry, 1);
  const auto header = read(open(image), uint64_t{kBlock} * 1099998, 512);
  REQUIRE_FALSE(header);
  CHECK(header.error().kind == ErrorKind::kMalformed);
}

// Every read of every sector is the truth, or fails.
void check_truth_or_failure(const Opened& disk, const Bytes& truth) {
  if (!disk) return;
  CHECK(disk->size() == truth.size());
  for (uint64_t offset = 0; offset < truth.size(); offset += 512) {
    const auto got = read(disk, offset, 512);
    if (got) CHECK(std::memcmp(got->data(), truth.data() + offset, 512) == 0);
  }
}

TEST_CASE("vhd: a file cut anywhere shows the truth or fails") {
  const MemoryFiles files = parent_files();
  for (const bool child : {false, true}) {
    const Bytes whole = child ? differencing().build() : dynamic().build();
    const Bytes truth = child ? differencing_content() : content_of(dynamic());
    for (size_t bytes = 0; bytes < whole.size(); bytes += 256) {
      INFO("cut to ", bytes);
      check_truth_or_failure(
          open(Bytes(whole.begin(), whole.begin() + static_cast<long>(bytes)), files), truth);
    }
  }
}

TEST_CASE("vhd: a BAT too large to be checked, and the file cut anywhere") {
  VhdBuilder builder;
  builder.current_size = 1100000 * uint64_t{512};
  builder.block_size = 512;
  builder.cylinders = 55000;
  builder.heads = 20;
  builder.sectors_per_track = 1;
  for (uint32_t i = 0; i < 8; ++i) {
    builder.blocks[i] = {Bytes(1, std::byte{0xff}), pattern(512, i)};
  }
  const Bytes whole = builder.build();
  size_t failures = 0;
  for (size_t cut = 0; cut <= 17; ++cut) {
    Bytes image(whole.begin(), whole.end() - static_cast<long>(cut * 512));
    const Opened disk = open(std::move(image));
    REQUIRE(disk);
    for (uint32_t i = 0; i < 8; ++i) {
      const auto got = read(disk, i * uint64_t{512}, 512);
      if (got) CHECK(*got == pattern(512, i));
      if (!got) ++failures;
    }
  }
  CHECK(failures > 0);
}

TEST_CASE("vhd: a read that fails anywhere is a failure, never other bytes") {
  const MemoryFiles files = parent_files();
  const Bytes truth = differencing_content();
  for (int64_t n = 0;; ++n) {
    const auto source =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(with_batmap().build()));
    source->fail_read(n);
    const Opened disk = open(source, files);
    if (!disk) {
      CHECK(disk.error() == ErrorKind::kIo);
      continue;
    }
    const auto got = read(disk, 0, truth.size());
    if (source->reads() <= static_cast<uint64_t>(n)) break;  // none failed
    REQUIRE_FALSE(got);
    CHECK(got.error().kind == ErrorKind::kIo);
  }
}

}  // namespace
}  // namespace underlay::vhd::test
