#include "tools/thin/direct_map.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "tests/support/qcow2_fixture.h"
#include "tools/thin/direct_runs.h"

namespace underlay::thin {
namespace {

using Kind = DirectRun::Kind;

// A file of any size, which nobody reads.
class FakeFile final : public Source {
 public:
  explicit FakeFile(uint64_t size, std::optional<int> fd = 0) : size_(size), fd_(fd) {}
  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  std::optional<int> fd() const override { return fd_; }
  Result<void> read_at(uint64_t, MutableByteSpan) const override {
    return fail(ErrorKind::kIo, "is not read");
  }

 private:
  std::string name_ = "fake";
  uint64_t size_;
  std::optional<int> fd_;
};

struct Piece {
  Extent::Kind kind = Extent::Kind::kZero;
  uint64_t length = 0;
  const Source* source = nullptr;
  uint64_t offset = 0;
};
Piece zero(uint64_t length) { return {.length = length}; }
Piece compressed(uint64_t length) { return {.kind = Extent::Kind::kCompressed, .length = length}; }
Piece parent(uint64_t length) { return {.kind = Extent::Kind::kParent, .length = length}; }
Piece data(uint64_t length, const Source& source, uint64_t offset) {
  return {.kind = Extent::Kind::kData, .length = length, .source = &source, .offset = offset};
}

class FakeReader final : public Reader {
 public:
  explicit FakeReader(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {
    for (const Piece& piece : pieces_) ends_.push_back(size_ += piece.length);
  }
  uint64_t size() const override { return size_; }
  std::vector<const Source*> sources() const override { return {}; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    const auto end = std::upper_bound(ends_.begin(), ends_.end(), offset);
    const Piece& piece = pieces_[static_cast<size_t>(end - ends_.begin())];
    const uint64_t skip = offset - (*end - piece.length);
    Extent extent;
    extent.kind = piece.kind;
    extent.length = std::min(length, piece.length - skip);
    extent.source = piece.source;
    extent.source_offset = piece.offset + skip;
    return extent;
  }

 private:
  std::vector<Piece> pieces_;
  std::vector<uint64_t> ends_;
  uint64_t size_ = 0;
};

struct FakeDisk {
  explicit FakeDisk(std::vector<std::vector<Piece>> chain, uint64_t start = 0) {
    std::vector<Layer> layers;
    for (auto& pieces : chain) {
      layers.push_back({.reader = std::make_unique<FakeReader>(std::move(pieces)), .path = "fake"});
    }
    disk = std::make_unique<Disk>(std::move(layers), caches, start);
  }
  DirectMap map(const DirectLimits& limits = {}) const {
    auto map = make_direct_map(*disk, limits);
    REQUIRE(map);
    return *map;
  }
  Caches caches;
  std::unique_ptr<Disk> disk;
};

// "file0@8+4" and so on, for comparing.
std::string words(const DirectMap& map) {
  std::string text;
  for (const DirectRun& run : map.runs) {
    if (!text.empty()) text += ' ';
    if (run.kind == Kind::kFile) text += fmt::format("file{}@{}", run.file, run.file_sector);
    if (run.kind == Kind::kZero) text += "zero";
    if (run.kind == Kind::kServer) text += "server";
    text += fmt::format("+{}", run.sectors);
  }
  return text;
}

void check_whole(const DirectMap& map, const Disk& disk) {
  uint64_t next = 0, file = 0, zeros = 0, server = 0;
  for (const DirectRun& run : map.runs) {
    REQUIRE(run.start == next);
    REQUIRE(run.sectors > 0);
    next += run.sectors;
    if (run.kind == Kind::kFile) REQUIRE(run.file < map.files.size());
    (run.kind == Kind::kFile ? file : run.kind == Kind::kZero ? zeros : server) += run.sectors;
  }
  CHECK(next * 512 == disk.size());
  CHECK(map.sectors == next);
  CHECK(map.file_sectors == file);
  CHECK(map.zero_sectors == zeros);
  CHECK(map.server_sectors == server);
  CHECK(map.reason.empty() == (server == 0));
}

TEST_CASE("data that goes on in the file becomes one run, whatever pieces the reader answers") {
  const FakeFile file(1 << 20);
  const FakeDisk disk({{data(512, file, 4096), data(1000, file, 4608), data(24, file, 5608),
                        zero(512), zero(1024), data(512, file, 0)}});
  const DirectMap map = disk.map();
  CHECK(words(map) == "file0@8+3 zero+3 file0@0+1");
  check_whole(map, *disk.disk);
  CHECK_FALSE(map.needs_server());
}

TEST_CASE("only whole sectors that lie on sectors of the file are direct") {
  const FakeFile file(1 << 20);
  SUBCASE("the file's offset is odd") {
    const FakeDisk disk({{data(1024, file, 4096 + 8), data(512, file, 512)}});
    CHECK(words(disk.map()) == "server+2 file0@1+1");
    CHECK(disk.map().reason == "1024 bytes not on whole sectors of the file");
  }
  SUBCASE("a boundary within a sector") {
    const FakeDisk disk({{data(700, file, 0), zero(836), data(512, file, 0)}});
    CHECK(words(disk.map()) == "file0@0+1 server+1 zero+1 file0@0+1");
  }
  SUBCASE("several pieces within one sector") {
    const FakeDisk disk({{data(100, file, 0), zero(100), data(312, file, 0), zero(512)}});
    CHECK(words(disk.map()) == "server+1 zero+1");
  }
  SUBCASE("guest and file are shifted by the same number") {
    const FakeDisk disk({{zero(100), data(1436, file, 100), zero(512)}});
    CHECK(words(disk.map()) == "server+1 file0@1+2 zero+1");
  }
  SUBCASE("the disk begins within the image") {
    const FakeDisk disk({{zero(100), data(1024, file, 100)}}, 100);
    CHECK(words(disk.map()) == "server+2");
  }
}

TEST_CASE("the last sector of an odd size holds padding that is not in the file") {
  const FakeFile file(1000);
  const FakeDisk disk({{data(1000, file, 0)}});
  CHECK(words(disk.map()) == "file0@0+1 server+1");
  const FakeDisk zeros({{zero(1000)}});
  CHECK(words(zeros.map()) == "zero+2");
}

TEST_CASE("what lies beyond the file's whole sectors goes to the server, which says why") {
  const FakeFile file(2048 + 100);
  const FakeDisk disk({{data(4096, file, 0), data(512, file, uint64_t{1} << 60)}});
  CHECK(words(disk.map()) == "file0@0+4 server+5");
  CHECK(disk.map().reason == "2560 bytes beyond the end of the file");
  const FakeDisk wraps({{data(1024, file, UINT64_MAX - 511)}});
  CHECK(words(wraps.map()) == "server+2");
}

TEST_CASE("compressed data and sources without a descriptor go to the server") {
  const FakeFile file(1 << 20);
  const FakeFile remote(1 << 20, std::nullopt);
  const FakeDisk disk({{compressed(4096), data(512, file, 0), data(512, remote, 0)}});
  const DirectMap map = disk.map();
  CHECK(words(map) == "server+8 file0@0+1 server+1");
  CHECK(map.files.size() == 1);
  CHECK(map.reason == "4096 bytes compressed, 512 bytes not in a local file");
}

TEST_CASE("each extent of a chain is mapped to the file of its layer") {
  const FakeFile top(1 << 20), base(1 << 20);
  const FakeDisk disk({{parent(1024), data(512, top, 512), parent(2048)},
                       {data(2048, base, 4096), zero(512)}});  // shorter than its child
  const DirectMap map = disk.map();
  CHECK(words(map) == "file0@8+2 file1@1+1 file0@11+1 zero+3");
  CHECK(map.files == std::vector<const Source*>{&base, &top});
  check_whole(map, *disk.disk);
}

TEST_CASE("an image without data has one run, and one of size 0 none") {
  CHECK(words(FakeDisk({{zero(1 << 20), parent(1 << 20)}}).map()) == "zero+4096");
  CHECK(words(FakeDisk({{zero(0)}}).map()).empty());
}

TEST_CASE("too many runs are joined where the fewest sectors lose their direct way") {
  const FakeFile file(1 << 30);
  const FakeDisk disk({{data(1 << 20, file, 0), zero(512), data(512, file, 0), zero(1024),
                        data(1 << 20, file, 1 << 20), compressed(512)}});
  CHECK(disk.map({.targets = 6}).runs.size() == 6);
  CHECK(words(disk.map({.targets = 5})) == "file0@0+2048 server+2 zero+2 file0@2048+2048 server+1");
  CHECK(words(disk.map({.targets = 4})) == "file0@0+2048 server+4 file0@2048+2048 server+1");
  CHECK(disk.map({.targets = 4}).reason ==
        "512 bytes compressed, 2048 bytes in too many small pieces");
  CHECK(words(disk.map({.targets = 1})) == "server+4101");
  CHECK(disk.map({.targets = 1}).files.empty());
}

TEST_CASE("files and extents beyond their limits go to the server") {
  const FakeFile a(1 << 20), b(1 << 20);
  const FakeDisk disk({{data(512, a, 0), data(512, b, 0), data(512, a, 512), zero(512)}});
  CHECK(words(disk.map({.files = 1})) == "file0@0+1 server+1 file0@1+1 zero+1");
  CHECK(words(disk.map({.extents = 2})) == "file0@0+1 file1@0+1 server+2");
  CHECK(disk.map({.extents = 2}).reason == "1024 bytes in an image of too many pieces to look at");
}

TEST_CASE("metadata that cannot be read fails the map") {
  Qcow2Opener opener;
  Qcow2Builder builder({.size = 64 << 10});
  builder.put_entry(3, 0x8000'0000'0000'0002);  // a reserved bit
  const auto disk = opener.open_disk(builder.file);
  REQUIRE(disk);
  CHECK_FALSE(make_direct_map(*disk));
}

TEST_CASE("a huge sparse image and one of many pieces are mapped in bounded time and memory") {
  Qcow2Opener opener;
  const Qcow2Builder builder({.cluster_bits = 16, .size = uint64_t{64} << 40});
  const auto sparse = opener.open_disk(builder.file);
  REQUIRE(sparse);
  const auto map = make_direct_map(*sparse);
  REQUIRE(map);
  CHECK(words(*map) == fmt::format("zero+{}", (uint64_t{64} << 40) / 512));

  const FakeFile file(1 << 30);
  std::vector<Piece> pieces;
  for (uint64_t i = 0; i < 100'000; ++i) {
    pieces.push_back(i % 2 == 0 ? data(512 * (1 + i % 7), file, 512 * i) : zero(512));
  }
  const FakeDisk disk({std::move(pieces)});
  const DirectMap joined = disk.map({.targets = 1000});
  check_whole(joined, *disk.disk);
  CHECK(joined.runs.size() <= 1000);
  CHECK(joined.file_sectors > 0);  // joined no further than it had to
}

// What a byte of a disk is, for the random test.
struct Place {
  Extent::Kind kind;
  const Source* source;
  uint64_t offset;
};
bool is_direct(const std::vector<Place>& truth, uint64_t sector) {
  const Place& first = truth[sector * 512];
  if (first.kind == Extent::Kind::kData && first.offset % 512 != 0) return false;
  if (first.kind == Extent::Kind::kCompressed) return false;
  for (uint64_t i = 0; i < 512; ++i) {
    const Place& place = truth[sector * 512 + i];
    if (place.kind != first.kind) return false;
    if (place.kind != Extent::Kind::kData) continue;
    if (place.source != first.source || place.offset != first.offset + i) return false;
    if (first.offset + 512 > first.source->size()) return false;
  }
  return true;
}
void check_run(const DirectRun& run, const DirectMap& map, const std::vector<Place>& truth) {
  for (uint64_t i = 0; i < run.sectors; ++i) {
    const Place& place = truth[(run.start + i) * 512];
    if (run.kind == Kind::kServer) continue;
    REQUIRE(is_direct(truth, run.start + i));
    REQUIRE((run.kind == Kind::kZero) == (place.kind == Extent::Kind::kZero));
    if (run.kind != Kind::kFile) continue;
    REQUIRE(map.files[run.file] == place.source);
    REQUIRE((run.file_sector + i) * 512 == place.offset);
  }
}

TEST_CASE("every byte is where the map says, for random extents") {
  std::mt19937_64 random(7);
  const FakeFile a(40'000), b(64 << 10);
  for (int round = 0; round < 200; ++round) {
    const bool odd = round % 2 == 0;
    std::vector<Piece> pieces;
    std::vector<Place> truth;
    for (uint64_t i = 0; i < 30; ++i) {
      const uint64_t length = odd ? 1 + random() % 2000 : 512 * (1 + random() % 4);
      const uint64_t offset = odd ? random() % 65'000 : 512 * (random() % 120);
      const uint64_t kind = random() % 5;
      pieces.push_back(kind == 0   ? zero(length)
                       : kind == 1 ? compressed(length)
                                   : data(length, kind == 2 ? a : b, offset));
      const Piece& piece = pieces.back();
      for (uint64_t n = 0; n < length; ++n) {
        truth.push_back({piece.kind, piece.source, piece.offset + n});
      }
    }
    const FakeDisk disk({pieces});
    truth.resize(disk.disk->size(), Place{Extent::Kind::kZero, nullptr, 0});
    const DirectMap map = disk.map();
    check_whole(map, *disk.disk);
    uint64_t direct = 0;
    for (uint64_t sector = 0; sector < map.sectors; ++sector) direct += is_direct(truth, sector);
    CHECK(map.file_sectors + map.zero_sectors == direct);
    for (const DirectRun& run : map.runs) check_run(run, map, truth);

    const DirectMap joined = disk.map({.targets = 1 + random() % 10});
    check_whole(joined, *disk.disk);
    CHECK(joined.runs.size() <= 10);
    for (const DirectRun& run : joined.runs) check_run(run, joined, truth);
  }
}

}  // namespace
}  // namespace underlay::thin
