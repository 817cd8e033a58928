#include "server/block_status.h"

#include <doctest/doctest.h>

#include <functional>

#include "io/memory_source.h"
#include "server/limits.h"
#include "server/nbd_protocol.h"

namespace underlay {
namespace {

using Kind = Extent::Kind;

// A disk that consists of what a function says.
class FunctionReader final : public Reader {
 public:
  using Map = std::function<Result<Extent>(uint64_t offset)>;
  FunctionReader(uint64_t size, Map map) : size_(size), map_(std::move(map)) {}

  uint64_t size() const override { return size_; }
  std::vector<const Source*> sources() const override { return {}; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor purpose) const override {
    CHECK(purpose == MapFor::kStatus);
    Extent extent = TRY(map_(offset));
    extent.length = std::min(extent.length, length);
    return extent;
  }

 private:
  uint64_t size_;
  Map map_;
};

// What data extents point to: Disk asks it for holes of the file system.
const MemorySource& stored() {
  static const MemorySource source({});
  return source;
}

Extent run(Kind kind, uint64_t length, bool reserved = false) {
  Extent extent;
  extent.source = &stored();
  extent.kind = kind;
  extent.reserved = reserved;
  extent.length = length;
  return extent;
}

struct Fixture {
  explicit Fixture(uint64_t size, FunctionReader::Map map, uint64_t start = 0) {
    std::vector<Layer> layers;
    layers.push_back(
        {.reader = std::make_unique<FunctionReader>(size, std::move(map)), .path = "image"});
    exported = std::make_unique<Export>(
        "", "", std::make_shared<const Disk>(std::move(layers), caches, start));
  }
  Caches caches;
  std::unique_ptr<Export> exported;
};

using Pairs = std::vector<std::pair<uint64_t, uint64_t>>;
Pairs pairs(const std::vector<StatusExtent>& extents) {
  Pairs all;
  for (const StatusExtent& extent : extents) all.emplace_back(extent.length, extent.flags);
  return all;
}

constexpr uint64_t kHole = nbd::kStateHole | nbd::kStateZero;

// Sectors: data, compressed, zeros, reserved zeros, in no image; then again.
Result<Extent> five_kinds(uint64_t offset) {
  switch (offset / 512 % 5) {
    case 0:
      return run(Kind::kData, 512 - offset % 512);
    case 1:
      return run(Kind::kCompressed, 512 - offset % 512);
    case 2:
      return run(Kind::kZero, 512 - offset % 512);
    case 3:
      return run(Kind::kZero, 512 - offset % 512, true);
    default:
      return run(Kind::kParent, 512 - offset % 512);
  }
}

TEST_CASE("block status: only proved zeros are zeros, and reserved ones are no holes") {
  const Fixture fixture(2560, five_kinds);
  const auto status = block_status(*fixture.exported, 0, 2560, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) ==
        Pairs{{1024, 0}, {512, kHole}, {512, nbd::kStateZero}, {512, kHole}});
  CHECK(pairs(status->depth) == Pairs{{2048, 1}, {512, 0}});
}

TEST_CASE("block status: begins and ends with the range that was asked for") {
  const Fixture fixture(5120, five_kinds);
  const auto status = block_status(*fixture.exported, 1000, 100, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{24, 0}, {76, kHole}});
}

TEST_CASE("block status: counts from the export's start on the disk") {
  const Fixture fixture(5120, five_kinds, 1024);
  const auto status = block_status(*fixture.exported, 0, 1024, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{512, kHole}, {512, nbd::kStateZero}});
}

TEST_CASE("block status: one extent when only one is wanted, joined as far as it goes") {
  const Fixture fixture(5120, five_kinds);
  const auto status = block_status(*fixture.exported, 0, 5120, true);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{1024, 0}});
  REQUIRE(status->depth.size() == 1);
  CHECK(status->depth[0].length >= 1024);
}

TEST_CASE("block status: a reply has a bounded number of extents") {
  const Fixture fixture(512ull << 20, [](uint64_t offset) -> Result<Extent> {
    return run(offset / 512 % 2 == 0 ? Kind::kData : Kind::kZero, 512);
  });
  const auto status = block_status(*fixture.exported, 0, 512ull << 20, false);
  REQUIRE(status);
  CHECK(status->allocation.size() == limits::kStatusExtents);
  CHECK(status->depth.size() == 1);
}

TEST_CASE("block status: a reply takes a bounded number of steps") {
  unsigned steps = 0;
  const Fixture fixture(512ull << 20, [&](uint64_t) -> Result<Extent> {
    ++steps;
    return run(Kind::kData, 512);
  });
  const auto status = block_status(*fixture.exported, 0, 512ull << 20, false);
  REQUIRE(status);
  CHECK(steps == limits::kStatusSteps);
  CHECK(pairs(status->allocation) == Pairs{{512ull * limits::kStatusSteps, 0}});
}

Result<Extent> broken_behind(uint64_t offset, uint64_t good) {
  if (offset >= good) return fail(ErrorKind::kMalformed, "broken table");
  return run(Kind::kZero, good - offset);
}

TEST_CASE("block status: a failure at the start is a failure, later the end of the answer") {
  const Fixture fixture(8192, [](uint64_t offset) { return broken_behind(offset, 4096); });
  const auto status = block_status(*fixture.exported, 1024, 7168, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{3072, kHole}});
  const auto failed = block_status(*fixture.exported, 4096, 4096, false);
  REQUIRE(!failed);
  CHECK(failed.error().kind == ErrorKind::kMalformed);
}

}  // namespace
}  // namespace underlay
