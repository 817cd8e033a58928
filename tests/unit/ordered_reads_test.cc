#include "tools/img/ordered_reads.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "tests/support/fake_disk.h"
#include "tests/support/opened_disk.h"
#include "tests/support/temp_folder.h"

namespace underlay::img {
namespace {

using Kind = Extent::Kind;

constexpr uint64_t kUnit = 64 << 10;
constexpr uint64_t kPart = OrderedReads::kPart;

// What comes out, put together again; parts that do not follow each other, or that end elsewhere
// than they may, fail the test.
struct Taken {
  std::string bytes;
  uint64_t stored = 0;
  std::vector<DiskPart> parts;  // their bytes are gone
  std::optional<Error> error;
};

Taken take_all(const Disk& disk, uint64_t offset, uint64_t length, unsigned threads = 3) {
  OrderedReads reads(disk, offset, length, {.threads = threads});
  Taken taken;
  for (;;) {
    const auto part = reads.next();
    if (!part) {
      taken.error = part.error();
      const auto again = reads.next();
      CHECK(!again);
      CHECK(again.error().to_string() == part.error().to_string());
      return taken;
    }
    if (!*part) {
      CHECK(!reads.next().value());
      return taken;
    }
    CHECK((*part)->offset == offset + taken.bytes.size());
    CHECK((*part)->length > 0);
    if ((*part)->is_zero()) {
      taken.bytes.append((*part)->length, '\0');
      CHECK((*part)->stored == 0);
    } else {
      CHECK((*part)->bytes.size() == (*part)->length);
      taken.bytes += as_text((*part)->bytes);
    }
    if (taken.bytes.size() < length && !taken.error) CHECK(taken.bytes.size() % kUnit == 0);
    taken.stored += (*part)->stored;
    taken.parts.push_back(**part);
  }
}

std::string read_at_once(const Disk& disk, uint64_t offset, uint64_t length) {
  std::string bytes(length, '#');
  REQUIRE(disk.read(offset, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

uint64_t stored_in(const std::vector<Piece>& pieces) {
  uint64_t sum = 0;
  for (const Piece& piece : pieces) sum += piece.kind == Kind::kZero ? 0 : piece.length;
  return sum;
}

std::vector<Piece> random_pieces(uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Piece> pieces;
  uint64_t size = 0;
  while (size < 12 << 20) {
    constexpr std::array kKinds{Kind::kData, Kind::kZero, Kind::kCompressed};
    const Kind kind = kKinds[random() % kKinds.size()];
    const uint64_t longest = random() % 3 == 0 ? 3 << 20 : 100 << 10;
    const uint64_t length = (1 + random() % (longest >> 9)) << 9;
    const int fill = kind == Kind::kZero ? 0 : 1 + static_cast<int>(random() % 255);
    pieces.push_back({kind, length, fill});
    size += length;
  }
  return pieces;
}

TEST_CASE("ordered reads give all bytes of a disk in order, whatever the number of threads") {
  for (const uint32_t seed : {1u, 2u, 3u, 4u}) {
    const auto pieces = random_pieces(seed);
    const Chain chain({pieces});
    const std::string expected = read_at_once(*chain.disk, 0, chain.disk->size());
    for (const unsigned threads : {1u, 2u, 7u}) {
      CAPTURE(seed);
      CAPTURE(threads);
      const Taken taken = take_all(*chain.disk, 0, chain.disk->size(), threads);
      CHECK(!taken.error);
      CHECK(taken.bytes == expected);
      CHECK(taken.stored == stored_in(pieces));
    }
  }
}

TEST_CASE("ordered reads of a part of a disk give that part") {
  const Chain chain({random_pieces(5)});
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, kUnit, 3 * kPart + 17}) {
    const Taken taken = take_all(*chain.disk, 12345, length);
    CHECK(!taken.error);
    CHECK(taken.bytes == read_at_once(*chain.disk, 12345, length));
  }
}

TEST_CASE("a run of zeros is one part without bytes, in whole units; shorter ones are read along") {
  const uint64_t zeros = 5 * kPart;
  const Chain chain({{{Kind::kData, 1000, 'a'},
                      {Kind::kZero, kUnit - 1},
                      {Kind::kData, 7001, 'b'},
                      {Kind::kZero, zeros},
                      {Kind::kZero, zeros},
                      {Kind::kData, 1000, 'c'}}});
  const Taken taken = take_all(*chain.disk, 0, chain.disk->size());
  REQUIRE(taken.parts.size() == 3);
  CHECK(taken.parts[0].length == 2 * kUnit);
  CHECK(taken.parts[0].stored == 8001);
  CHECK(taken.parts[1].is_zero());
  CHECK(taken.parts[1].length == 2 * zeros - kUnit);
  CHECK(taken.parts[2].stored == 1000);
}

TEST_CASE("zeros up to the end are a part of their own, however few") {
  const Chain chain({{{Kind::kData, 1, 'a'}, {Kind::kZero, kUnit + 511}}});
  const Taken taken = take_all(*chain.disk, 0, chain.disk->size());
  REQUIRE(taken.parts.size() == 2);
  CHECK(taken.parts[0].length == kUnit);
  CHECK(taken.parts[1].is_zero());
}

// A disk of any size that is all zeros, in runs as a table has them.
class ZeroReader final : public Reader {
 public:
  ZeroReader(uint64_t size, uint64_t run) : size_(size), run_(run) {}
  uint64_t size() const override { return size_; }
  Result<Extent> map(uint64_t offset, uint64_t length, MapFor) const override {
    ++maps;
    Extent extent;
    extent.kind = Kind::kZero;
    extent.length = std::min(length, run_ - offset % run_);
    return extent;
  }
  std::vector<const Source*> sources() const override { return {}; }

  mutable std::atomic<uint64_t> maps = 0;

 private:
  uint64_t size_;
  uint64_t run_;
};

TEST_CASE("zeros cost as much as mapping them, up to the largest disks") {
  for (const uint64_t size : {uint64_t{1} << 40, UINT64_MAX - 511}) {
    const uint64_t run = size / 10000;
    auto reader = std::make_unique<ZeroReader>(size, run);
    const ZeroReader& zeros = *reader;
    std::vector<Layer> layers;
    layers.push_back({.reader = std::move(reader), .path = "zeros"});
    Caches caches;
    const Disk disk(std::move(layers), caches);
    OrderedReads reads(disk, 0, disk.size());
    uint64_t length = 0;
    uint64_t parts = 0;
    while (const auto part = reads.next().value()) {
      CHECK(part->is_zero());
      length += part->length;
      ++parts;
    }
    CHECK(length == disk.size());
    CHECK(parts < 100);
    CHECK(zeros.maps < 10200);
  }
}

TEST_CASE("holes of the file system are zeros for ordered reads") {
  const TempFolder folder;
  const std::string path = folder.write("disk.raw", "front");
  std::filesystem::resize_file(path, 64 << 20);
  Caches caches;
  OpenOptions options;
  options.format = "raw";
  const test::MemoryFiles none;
  const auto opened = open_disk(path, options, none, caches);
  REQUIRE(opened);
  const Taken taken = take_all(*opened->disk, 0, opened->disk->size());
  REQUIRE(taken.parts.size() == 2);
  CHECK(taken.bytes.starts_with("front"));
  CHECK(taken.parts[0].length == kUnit);
  CHECK(taken.parts[1].is_zero());
}

TEST_CASE("a read that fails is an error behind all units that lie before it") {
  const uint64_t size = 4 * kPart;
  for (const uint64_t bad : {uint64_t{0}, kUnit - 1, kUnit, kPart - 1, kPart, size - 1}) {
    const Chain chain({{{Kind::kData, size / 2, 'a'}, {Kind::kData, size / 2, 'b'}}});
    chain.readers[0]->faults().fail_range(bad, 1);
    const Taken taken = take_all(*chain.disk, 0, size);
    CAPTURE(bad);
    REQUIRE(taken.error);
    CHECK(taken.error->sys_errno == EIO);
    CHECK(taken.bytes.size() == bad - bad % kUnit);
    CHECK(taken.stored == taken.bytes.size());
  }
}

TEST_CASE("a read that failed once and then succeeds is no error") {
  const Chain chain({{{Kind::kData, 3 * kPart, 'a'}}});
  chain.readers[0]->faults().fail_read(1);
  const Taken taken = take_all(*chain.disk, 0, 3 * kPart, 1);
  CHECK(!taken.error);
  CHECK(taken.bytes == std::string(3 * kPart, 'a'));
  CHECK(taken.stored == 3 * kPart);
}

TEST_CASE("what cannot be mapped is an error behind all bytes that lie before it") {
  for (const uint64_t bad :
       {uint64_t{0}, uint64_t{512}, kPart, kPart + 512, 2 * kPart + kUnit + 5, 3 * kPart - 512}) {
    const Chain chain(
        {{{Kind::kData, kPart, 'a'}, {Kind::kZero, kPart}, {Kind::kData, kPart, 'b'}}});
    chain.readers[0]->map_fails_from = bad;
    OrderedReads reads(*chain.disk, 0, 3 * kPart, {.threads = 2});
    uint64_t length = 0;
    auto part = reads.next();
    for (; part && *part; part = reads.next()) length += (*part)->length;
    CAPTURE(bad);
    REQUIRE(!part);
    CHECK(part.error().kind == ErrorKind::kMalformed);
    CHECK(length == bad);
  }
}

TEST_CASE("each part with bytes is handed out with what the threads made of it") {
  const Chain chain({random_pieces(6)});
  ReadSettings settings;
  settings.threads = 3;
  settings.unit = 4096;
  settings.work = [](unsigned thread, const DiskPart& part, std::vector<std::byte>& product) {
    CHECK(thread < 3);
    product.assign(part.bytes.rbegin(), part.bytes.rend());
    return Result<void>();
  };
  OrderedReads reads(*chain.disk, 0, chain.disk->size(), settings);
  uint64_t at = 0;
  while (const auto part = reads.next().value()) {
    CHECK(part->offset == at);
    at += part->length;
    CHECK(std::equal(part->bytes.rbegin(), part->bytes.rend(), part->product.begin(),
                     part->product.end()));
    if (at < chain.disk->size()) CHECK(at % 4096 == 0);
  }
  CHECK(at == chain.disk->size());
}

TEST_CASE("work that fails is an error in the place of its part") {
  const Chain chain({{{Kind::kData, 4 * kPart, 'a'}}});
  ReadSettings settings;
  settings.work = [](unsigned, const DiskPart& part, std::vector<std::byte>&) -> Result<void> {
    if (part.offset == 2 * kPart) throw std::bad_alloc();
    return {};
  };
  OrderedReads reads(*chain.disk, 0, 4 * kPart, settings);
  CHECK(reads.next().value()->offset == 0);
  CHECK(reads.next().value()->offset == kPart);
  CHECK(reads.next().error().kind == ErrorKind::kLimit);
}

TEST_CASE("there are as many threads as the consumer has to wait for") {
  constexpr unsigned kThreads = 5;
  const Chain chain({{{Kind::kData, 200 * kPart, 'a'}}});
  std::atomic<unsigned> seen = 0;  // a bit for each
  ReadSettings settings;
  settings.threads = kThreads;
  settings.work = [&](unsigned thread, const DiskPart&, std::vector<std::byte>&) -> Result<void> {
    seen |= 1u << thread;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return {};
  };
  OrderedReads reads(*chain.disk, 0, chain.disk->size(), settings);
  while (reads.next().value() && seen != (1u << kThreads) - 1) continue;
  CHECK(seen == (1u << kThreads) - 1);
}

TEST_CASE("nobody reads further ahead than the buffers go, nor on after the consumer left") {
  constexpr unsigned kThreads = 2;
  constexpr uint64_t kParts = 100;
  const Chain chain({{{Kind::kData, kParts * kPart, 'a'}}});
  {
    OrderedReads reads(*chain.disk, 0, kParts * kPart, {.threads = kThreads});
    REQUIRE(reads.next().value());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK(chain.readers[0]->faults().reads() <= OrderedReads::kLeastAhead);
  }
  CHECK(chain.readers[0]->faults().reads() <= OrderedReads::kLeastAhead);
}

}  // namespace
}  // namespace underlay::img
