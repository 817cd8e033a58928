#include "formats/metadata.h"

#include <doctest/doctest.h>

#include "io/faulty_source.h"
#include "io/memory_source.h"

namespace underlay {
namespace {

constexpr uint64_t kSlice = Metadata::kSliceBytes;

// A file whose big-endian 64-bit word at each offset that is a multiple of 8 is that offset.
std::shared_ptr<const Source> counted_file(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t at = 0; at + 8 <= size; at += 8) store_be<uint64_t>(bytes, at, at);
  return std::make_shared<MemorySource>(std::move(bytes));
}

TEST_CASE("a slice holds the entry and its neighbours") {
  Caches caches;
  const Metadata metadata(caches, counted_file(100000));
  const auto slice = *metadata.slice_at(kSlice + 8, 8, MapFor::kRead);
  CHECK(slice.holds(kSlice, 8));
  CHECK(slice.holds(2 * kSlice - 8, 8));
  CHECK(!slice.holds(kSlice - 8, 8));
  CHECK(!slice.holds(2 * kSlice, 8));
  CHECK(!slice.holds(2 * kSlice - 4, 8));
  CHECK(slice.end() == 2 * kSlice);
  CHECK(slice.be<uint64_t>(kSlice + 8) == kSlice + 8);
  CHECK(slice.le<uint8_t>(kSlice + 15) == 8);
}

TEST_CASE("kReadNow answers from memory only") {
  Caches caches;
  const Metadata metadata(caches, counted_file(100000));
  const auto cold = metadata.slice_at(0, 8, MapFor::kReadNow);
  REQUIRE(!cold);
  CHECK(cold.error().kind == ErrorKind::kWouldBlock);
  REQUIRE(metadata.slice_at(8, 8, MapFor::kRead));
  CHECK(metadata.slice_at(0, 8, MapFor::kReadNow));
}

TEST_CASE("an entry beyond the end of the file is truncated, also for kReadNow") {
  Caches caches;
  const Metadata metadata(caches, counted_file(kSlice + 12));
  for (const MapFor purpose : {MapFor::kReadNow, MapFor::kRead, MapFor::kStatus}) {
    for (const uint64_t offset : {kSlice + 8, kSlice + 16, ~uint64_t{0} - 7}) {
      const auto slice = metadata.slice_at(offset, 8, purpose);
      REQUIRE(!slice);
      CHECK(slice.error().kind == ErrorKind::kTruncated);
      CHECK(slice.error().offset == offset);
      CHECK(slice.error().file == "memory");
    }
  }
}

TEST_CASE("the last slice ends with the file") {
  Caches caches;
  const Metadata metadata(caches, counted_file(kSlice + 12));
  const auto slice = *metadata.slice_at(kSlice, 8, MapFor::kRead);
  CHECK(slice.end() == kSlice + 12);
  CHECK(slice.be<uint64_t>(kSlice) == kSlice);
  CHECK(!slice.holds(kSlice + 8, 8));
}

TEST_CASE("an unreadable table is an error and is read again next time") {
  Caches caches;
  const auto faulty = std::make_shared<FaultySource>(counted_file(100000));
  const Metadata metadata(caches, faulty);
  faulty->fail_read(0);
  const auto failed = metadata.slice_at(0, 8, MapFor::kRead);
  REQUIRE(!failed);
  CHECK(failed.error().kind == ErrorKind::kIo);
  CHECK(metadata.slice_at(0, 8, MapFor::kRead));
}

TEST_CASE("a slice is read once, and two files never share one") {
  Caches caches;
  const auto first = std::make_shared<FaultySource>(counted_file(100000));
  const Metadata one(caches, first);
  const Metadata two(caches, std::make_shared<MemorySource>(std::vector<std::byte>(100000)));
  REQUIRE(one.slice_at(8, 8, MapFor::kRead));
  REQUIRE(one.slice_at(16, 8, MapFor::kRead));
  CHECK(first->reads() == 1);
  CHECK(two.slice_at(8, 8, MapFor::kRead)->be<uint64_t>(8) == 0);
}

}  // namespace
}  // namespace underlay
