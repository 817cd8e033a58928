#include <doctest/doctest.h>

#include <cstring>

#include "formats/vdi/vdi.h"
#include "formats/vdi/vdi_layout.h"
#include "io/store_le.h"
#include "tests/support/vdi_disks.h"

namespace underlay::vdi::test {
namespace {

template <class T>
ErrorKind with_field(size_t offset, T value) {
  Bytes image = dynamic().build();
  store_le<T>(image, offset, value);
  INFO("field at ", offset, " is ", value);
  return open(image).error();
}

ErrorKind with_entry(uint32_t block, uint32_t entry) {
  return with_field<uint32_t>(VdiBuilder::kMapAt + block * 4, entry);
}

TEST_CASE("vdi: the signature is recognised, and missed where the text is") {
  const auto verdict = [](const Bytes& image) {
    return probe_vdi({.head = image, .tail = {}, .size = image.size()}).verdict;
  };
  Bytes image = dynamic().build();
  CHECK(verdict(image) == ProbeVerdict::kYes);
  image[64] ^= std::byte{1};
  CHECK(verdict(image) == ProbeVerdict::kDamaged);
  CHECK(open(image).error() == ErrorKind::kMalformed);
  image[0] = std::byte{'x'};
  CHECK(verdict(image) == ProbeVerdict::kNo);
  for (const size_t size : {0u, 1u, 64u, 71u}) CHECK(verdict(Bytes(size)) == ProbeVerdict::kNo);
}

TEST_CASE("vdi: other versions, flags and sector sizes are refused") {
  for (const uint32_t version : {0u, 1u, 0x00010000u, 0x00010002u, 0x00020001u}) {
    CHECK(with_field<uint32_t>(68, version) == ErrorKind::kUnsupported);
  }
  for (const uint32_t flags : {1u, 0x200u, 0x40000u, 0x80000000u}) {
    CHECK(with_field<uint32_t>(80, flags) == ErrorKind::kUnsupported);
  }
  CHECK(with_field<uint32_t>(80, 0x30100) == ErrorKind::kUsage);
  for (const uint32_t size : {0u, 256u, 4096u}) {
    CHECK(with_field<uint32_t>(360, size) == ErrorKind::kUnsupported);
  }
}

TEST_CASE("vdi: structures that overlap, lie askew or beyond the end are refused") {
  for (const uint32_t size : {0u, 383u, 441u, 0x7fffffffu, ~0u}) {
    CHECK(with_field<uint32_t>(72, size) == ErrorKind::kMalformed);
  }
  CHECK(with_field<uint32_t>(72, 440) == ErrorKind::kUsage);  // ends where the map begins
  for (const uint32_t at : {0u, 256u, 511u, 513u, 1024u, 0xfffffe00u}) {
    CHECK(with_field<uint32_t>(340, at) == ErrorKind::kMalformed);
  }
  for (const uint32_t at : {0u, 512u, 1025u, 1536u + 256}) {
    CHECK(with_field<uint32_t>(344, at) == ErrorKind::kMalformed);
  }
  for (const uint32_t at : {1024u + 512, 0xfffffe00u}) {
    CHECK(with_field<uint32_t>(344, at) == ErrorKind::kTruncated);
  }
}

TEST_CASE("vdi: counts that contradict each other are refused") {
  CHECK(with_field<uint64_t>(368, 6 * kBlock + 1) == ErrorKind::kMalformed);
  CHECK(with_field<uint64_t>(368, ~uint64_t{0}) == ErrorKind::kMalformed);
  CHECK(with_field<uint32_t>(384, 5) == ErrorKind::kMalformed);
  CHECK(with_field<uint32_t>(388, 7) == ErrorKind::kMalformed);
  for (const uint32_t extra : {1u, 511u, 513u}) {
    CHECK(with_field<uint32_t>(380, extra) ==
          (extra == 1 ? ErrorKind::kTruncated : ErrorKind::kMalformed));
  }
}

TEST_CASE("vdi: a map larger than the file is refused before it is read") {
  Bytes image = dynamic().build();
  store_le<uint32_t>(image, 384, 0x20000000);
  store_le<uint32_t>(image, 344, 0x80000000u + 512);
  CHECK(open(image).error() == ErrorKind::kTruncated);
}

TEST_CASE("vdi: entries past blocks_allocated, past the end, or twice are refused") {
  for (const uint32_t entry : {3u, 1000u, 0x7fffffffu, 0xfffffffdu}) {
    CHECK(with_entry(1, entry) == ErrorKind::kMalformed);
  }
  CHECK(with_entry(1, 0) == ErrorKind::kMalformed);  // block 3 is stored there
  VdiBuilder builder = dynamic();
  builder.blocks_allocated = 6;
  builder.entries[1] = 3;
  CHECK(open(builder.build()).error() == ErrorKind::kTruncated);
}

TEST_CASE("vdi: products beyond 2^64 are refused") {
  VdiBuilder builder;
  builder.disk_size = uint64_t{1} << 50;
  builder.block_size = uint32_t{1} << 31;
  Bytes image = builder.build();
  store_le<uint32_t>(image, 380, uint32_t{1} << 31);
  store_le<uint32_t>(image, 388, 0x80000);
  store_le<uint32_t>(image, VdiBuilder::kMapAt, 0x7ffff);
  CHECK(open(image).error() == ErrorKind::kTruncated);
}

TEST_CASE("vdi: only what the disk needs of the last block must be stored") {
  VdiBuilder builder = dynamic();
  builder.entries = {{1, 1}, {3, 0}, {5, 2}};
  Bytes image = builder.build();
  image.resize(image.size() - kBlock / 2);
  const Opened disk = open(image);
  REQUIRE(disk);
  CHECK(read_all(disk) == content_of(builder));
  image.pop_back();
  CHECK(open(image).error() == ErrorKind::kTruncated);
}

TEST_CASE("vdi: a large map is checked where it is used") {
  VdiBuilder builder;
  builder.disk_size = uint64_t{kBlock} * ((1 << 20) + 1);
  builder.stored = {pattern(kBlock, 1)};
  builder.entries = {{70000, 0}, {70001, 1}};
  const Opened disk = open(builder.build());
  REQUIRE(disk);
  CHECK(read(disk, uint64_t{kBlock} * 70000, kBlock).value() == builder.stored[0]);
  const auto beyond = read(disk, uint64_t{kBlock} * 70001, 512);
  REQUIRE_FALSE(beyond);
  CHECK(beyond.error().kind == ErrorKind::kMalformed);
  // The good block before the bad one is still read.
  CHECK(disk->map(uint64_t{kBlock} * 70000, 2 * kBlock, MapFor::kRead).value().length == kBlock);
}

TEST_CASE("vdi: a file cut anywhere shows the truth or fails") {
  const Bytes whole = dynamic().build();
  const Bytes truth = content_of(dynamic());
  for (size_t bytes = 0; bytes < whole.size(); bytes += 256) {
    const Opened disk =
        open(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)));
    if (disk) CHECK(read_all(disk) == truth);
  }
}

TEST_CASE("vdi: a read that fails anywhere is a failure, never other bytes") {
  for (int64_t n = 0;; ++n) {
    const auto source =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(dynamic().build()));
    source->fail_read(n);
    const Opened disk = open(source);
    if (!disk) {
      CHECK(disk.error() == ErrorKind::kIo);
      continue;
    }
    const auto got = read(disk, 0, kSize);
    if (source->reads() <= static_cast<uint64_t>(n)) break;  // none failed
    REQUIRE_FALSE(got);
    CHECK(got.error().kind == ErrorKind::kIo);
  }
}

}  // namespace
}  // namespace underlay::vdi::test
