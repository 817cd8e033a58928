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
  explicit Fixture(uint64_t size, FunctionReader::Map map, uint64_t start = 0,
                   std::vector<ExportedBitmap> bitmaps = {}) {
    std::vector<Layer> layers;
    layers.push_back(
        {.reader = std::make_unique<FunctionReader>(size, std::move(map)), .path = "image"});
    exported = std::make_unique<Export>(
        "", "", std::make_shared<const Disk>(std::move(layers), caches, start), "",
        std::move(bitmaps));
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

constexpr Negotiated kBoth{.structured = true, .allocation = true, .allocation_depth = true};
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
  const auto status = block_status(*fixture.exported, kBoth, 0, 2560, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) ==
        Pairs{{1024, 0}, {512, kHole}, {512, nbd::kStateZero}, {512, kHole}});
  CHECK(pairs(status->depth) == Pairs{{2048, 1}, {512, 0}});
}

TEST_CASE("block status: begins and ends with the range that was asked for") {
  const Fixture fixture(5120, five_kinds);
  const auto status = block_status(*fixture.exported, kBoth, 1000, 100, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{24, 0}, {76, kHole}});
}

TEST_CASE("block status: counts from the export's start on the disk") {
  const Fixture fixture(5120, five_kinds, 1024);
  const auto status = block_status(*fixture.exported, kBoth, 0, 1024, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{512, kHole}, {512, nbd::kStateZero}});
}

TEST_CASE("block status: one extent when only one is wanted, joined as far as it goes") {
  const Fixture fixture(5120, five_kinds);
  const auto status = block_status(*fixture.exported, kBoth, 0, 5120, true);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{1024, 0}});
  REQUIRE(status->depth.size() == 1);
  CHECK(status->depth[0].length >= 1024);
}

TEST_CASE("block status: a reply has a bounded number of extents") {
  const Fixture fixture(512ull << 20, [](uint64_t offset) -> Result<Extent> {
    return run(offset / 512 % 2 == 0 ? Kind::kData : Kind::kZero, 512);
  });
  const auto status = block_status(*fixture.exported, kBoth, 0, 512ull << 20, false);
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
  const auto status = block_status(*fixture.exported, kBoth, 0, 512ull << 20, false);
  REQUIRE(status);
  CHECK(steps == limits::kStatusSteps);
  CHECK(pairs(status->allocation) == Pairs{{512ull * limits::kStatusSteps, 0}});
}

Result<Extent> broken_behind(uint64_t offset, uint64_t good) {
  if (offset >= good) return fail(ErrorKind::kMalformed, "broken table");
  return run(Kind::kZero, good - offset);
}

// Every second `unit` is dirty, from the second one on; fails behind `good`.
class Striped final : public DirtyBitmap {
 public:
  Striped(uint64_t unit, uint64_t good) : unit_(unit), good_(good) {}
  Result<DirtyRun> run_at(uint64_t offset, uint64_t length) const override {
    if (offset >= good_) return fail(ErrorKind::kTruncated, "no bits");
    return DirtyRun{.length = std::min(length, unit_ - offset % unit_),
                    .dirty = offset / unit_ % 2 == 1};
  }

 private:
  uint64_t unit_, good_;
};

// The selected ones of three bitmaps, and of nothing else.
Result<BlockStatus> bitmap_status(uint32_t selected, uint64_t offset, uint64_t length,
                                  bool only_one = false) {
  constexpr uint64_t kSize = 64ull << 20;
  const Fixture fixture(
      kSize,
      [](uint64_t) -> Result<Extent> { return fail(ErrorKind::kMalformed, "not looked at"); }, 0,
      {{"a", std::make_shared<Striped>(65536, kSize)},
       {"b", std::make_shared<Striped>(512, kSize)},
       {"c", std::make_shared<Striped>(65536, 131072)}});
  return block_status(*fixture.exported, {.structured = true, .dirty_bitmaps = selected}, offset,
                      length, only_one);
}

TEST_CASE("block status: the dirty bitmaps that were selected, and no others") {
  const auto status = bitmap_status(0b101, 1000, 131072 - 1000);
  REQUIRE(status);
  CHECK(status->allocation.empty());
  CHECK(status->depth.empty());
  REQUIRE(status->bitmaps.size() == 2);
  CHECK(status->bitmaps[0].id == Negotiated::kDirtyBitmapId);
  CHECK(status->bitmaps[1].id == Negotiated::kDirtyBitmapId + 2);
  const Pairs expected{{64536, 0}, {65536, nbd::kStateDirty}};
  CHECK(pairs(status->bitmaps[0].extents) == expected);
  CHECK(pairs(status->bitmaps[1].extents) == expected);
}

TEST_CASE("block status: of a dirty bitmap, too, a reply is bounded, and may be one extent") {
  const auto many = bitmap_status(0b10, 0, 64ull << 20);
  REQUIRE(many);
  CHECK(many->bitmaps[0].extents.size() == limits::kStatusExtents);
  const auto one = bitmap_status(0b11, 512, 1 << 20, true);
  REQUIRE(one);
  CHECK(pairs(one->bitmaps[0].extents) == Pairs{{65024, 0}});
  CHECK(pairs(one->bitmaps[1].extents) == Pairs{{512, nbd::kStateDirty}});
}

TEST_CASE("block status: a bitmap that cannot be read fails, or ends its own answer") {
  const auto later = bitmap_status(0b101, 0, 262144);
  REQUIRE(later);
  CHECK(later->bitmaps[0].extents.size() == 4);
  CHECK(pairs(later->bitmaps[1].extents) == Pairs{{65536, 0}, {65536, nbd::kStateDirty}});
  const auto failed = bitmap_status(0b101, 131072, 4096);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().kind == ErrorKind::kTruncated);
}

TEST_CASE("block status: a failure at the start is a failure, later the end of the answer") {
  const Fixture fixture(8192, [](uint64_t offset) { return broken_behind(offset, 4096); });
  const auto status = block_status(*fixture.exported, kBoth, 1024, 7168, false);
  REQUIRE(status);
  CHECK(pairs(status->allocation) == Pairs{{3072, kHole}});
  const auto failed = block_status(*fixture.exported, kBoth, 4096, 4096, false);
  REQUIRE(!failed);
  CHECK(failed.error().kind == ErrorKind::kMalformed);
}

}  // namespace
}  // namespace underlay
