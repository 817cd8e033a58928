#include "formats/vhdx/vhdx_log.h"

#include <doctest/doctest.h>

#include <cstring>
#include <functional>

#include "io/memory_source.h"
#include "tests/support/vhdx_opened.h"

namespace underlay::vhdx::test {
namespace {

using Kind = Extent::Kind;
using PieceKind = Overlay::Piece::Kind;

constexpr size_t kSector = 4096;
constexpr size_t kLog = 1 << 20;
constexpr uint64_t kFile = 8 << 20;
constexpr uint64_t kPlace = 4 << 20;

const Guid& log_guid() {
  static const Guid value = guid("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
  return value;
}

// The log, with entries at bytes of it; they go on at its start behind its end.
Bytes log_of(const std::vector<std::pair<size_t, Bytes>>& entries) {
  Bytes log(kLog);
  for (const auto& [at, entry] : entries) {
    for (size_t i = 0; i < entry.size(); ++i) log[(at + i) % kLog] = entry[i];
  }
  return log;
}

LogWrite write(uint64_t offset, uint32_t seed) {
  return {.offset = offset, .bytes = pattern(kSector, seed)};
}

// An entry that writes sector `seed` to kPlace.
Bytes entry(uint64_t sequence_number, uint32_t tail, uint32_t seed) {
  return LogEntry{.sequence_number = sequence_number, .tail = tail, .writes = {write(kPlace, seed)}}
      .build(log_guid());
}

Result<Replay> replay(const Bytes& log, uint64_t file_size = kFile) {
  const Header header{.log_guid = log_guid(), .log = {.offset = 1 << 20, .length = kLog}};
  return replay_log(log, header, file_size);
}

// Which sector() the replay leaves at kPlace; 0: none.
bool leaves(const Bytes& log, uint32_t seed) {
  const auto replayed = replay(log);
  if (!replayed) return false;
  const auto piece = replayed->overlay.piece_at(kPlace, kSector);
  const Bytes expected = pattern(kSector, seed);
  return piece.kind == PieceKind::kSector &&
         std::equal(piece.bytes.begin(), piece.bytes.end(), expected.begin(), expected.end());
}

TEST_CASE("vhdx log: a write is the data sector with the bytes that its descriptor keeps") {
  CHECK(leaves(log_of({{0, entry(1, 0, 1)}}), 1));
  CHECK(leaves(log_of({{kSector * 7, entry(uint64_t{5} << 32 | 9, kSector * 7, 2)}}), 2));
}

TEST_CASE("vhdx log: entries are replayed from the tail to the head, in order") {
  CHECK(
      leaves(log_of({{0, entry(10, 0, 1)}, {8192, entry(11, 0, 2)}, {16384, entry(12, 0, 3)}}), 3));
  // What lies before the head's tail is where it belongs already.
  const auto replayed = replay(
      log_of({{0, entry(10, 0, 1)}, {8192, entry(11, 8192, 2)}, {16384, entry(12, 8192, 3)}}));
  CHECK(replayed.value().entries == 2);
}

TEST_CASE("vhdx log: an entry and a sequence go on at the log's start") {
  for (const size_t at : {kLog - 4096, kLog - 8192, kLog - 12288}) {
    const auto tail = static_cast<uint32_t>(at);
    CHECK(leaves(log_of({{at, entry(3, tail, 1)}, {(at + 8192) % kLog, entry(4, tail, 2)}}), 2));
  }
}

TEST_CASE("vhdx log: the sequence with the newest head counts") {
  CHECK(leaves(log_of({{0, entry(20, 0, 1)}, {40960, entry(10, 40960, 2)}}), 1));
  CHECK(leaves(log_of({{0, entry(10, 0, 2)}, {40960, entry(20, 40960, 1)}}), 1));
  // A gap in the numbers ends a sequence.
  CHECK(leaves(log_of({{0, entry(10, 0, 1)}, {8192, entry(12, 8192, 2)}}), 2));
}

TEST_CASE("vhdx log: what is not whole is no entry") {
  const auto head_is = [](const std::function<void(Bytes&)>& change) {
    Bytes newer = entry(11, 0, 2);
    change(newer);
    return leaves(log_of({{0, entry(10, 0, 1)}, {8192, newer}}), 1);
  };
  const auto sealed = [](size_t offset, auto value) {
    return [=](Bytes& bytes) {
      store_le<decltype(value)>(bytes, offset, value);
      seal(bytes, 0, bytes.size());
    };
  };
  CHECK_FALSE(head_is([](Bytes&) {}));
  CHECK(head_is([](Bytes& bytes) { bytes[5000] ^= std::byte{1}; }));  // torn
  CHECK(head_is([](Bytes& bytes) { bytes[4] ^= std::byte{1}; }));     // its checksum
  CHECK(head_is(sealed(0, uint32_t{0})));                             // signature
  CHECK(head_is(sealed(8, uint32_t{0})));                             // EntryLength
  CHECK(head_is(sealed(8, uint32_t{8191})));
  CHECK(head_is(sealed(8, uint32_t{4096})));  // without its data sector
  CHECK(head_is(sealed(8, uint32_t{kLog + 4096})));
  CHECK(head_is(sealed(12, uint32_t{100})));  // Tail
  CHECK(head_is(sealed(12, uint32_t{kLog})));
  CHECK(head_is(sealed(16, uint64_t{0})));  // SequenceNumber
  CHECK(head_is(sealed(24, uint32_t{2})));  // DescriptorCount
  CHECK(head_is(sealed(24, ~uint32_t{0})));
  CHECK(head_is(sealed(32, uint32_t{0})));                  // LogGuid
  CHECK(head_is(sealed(64, uint32_t{0})));                  // descriptor's signature
  CHECK(head_is(sealed(64 + 16, uint64_t{kPlace + 512})));  // FileOffset
  CHECK(head_is(sealed(64 + 24, uint64_t{10})));            // SequenceNumber
  CHECK(head_is(sealed(kSector, uint32_t{0})));             // data sector's signature
  CHECK(head_is(sealed(kSector + 4, uint32_t{1})));         // SequenceHigh
  CHECK(head_is(sealed(2 * kSector - 4, uint32_t{10})));    // SequenceLow
}

TEST_CASE("vhdx log: a sequence whose tail is not in it does not count, and none is a failure") {
  CHECK(leaves(log_of({{0, entry(10, 0, 1)}, {40960, entry(20, 81920, 2)}}), 1));
  CHECK(leaves(log_of({{0, entry(10, 0, 1)}, {40960, entry(20, 0, 2)}}), 1));
  for (const Bytes& log : {Bytes(kLog), log_of({{0, entry(10, 8192, 1)}})}) {
    const auto replayed = replay(log);
    REQUIRE_FALSE(replayed);
    CHECK(replayed.error().kind == ErrorKind::kMalformed);
    CHECK(replayed.error().message.find("no whole sequence") != std::string::npos);
  }
}

TEST_CASE("vhdx log: numbers at the top of their range do not wrap into a sequence") {
  CHECK(leaves(log_of({{0, entry(~uint64_t{0}, 0, 1)}}), 1));
}

TEST_CASE("vhdx log: padding behind an entry belongs to it, and an empty entry is one") {
  LogEntry padded{.sequence_number = 5, .writes = {write(kPlace, 1)}, .padding = 8192};
  CHECK(leaves(log_of({{0, padded.build(log_guid())}, {16384, entry(6, 0, 2)}}), 2));
  LogEntry empty{.sequence_number = 6};
  CHECK(leaves(log_of({{0, entry(5, 0, 1)}, {8192, empty.build(log_guid())}}), 1));
}

TEST_CASE("vhdx log: a file that is shorter than the log knows is truncated") {
  LogEntry flushed{.writes = {write(kPlace, 1)}, .flushed_file_offset = kFile};
  CHECK(replay(log_of({{0, flushed.build(log_guid())}})));
  const auto replayed = replay(log_of({{0, flushed.build(log_guid())}}), kFile - 1);
  REQUIRE_FALSE(replayed);
  CHECK(replayed.error().kind == ErrorKind::kTruncated);
}

TEST_CASE("vhdx log: the file is as long as LastFileOffset and the writes say, with zeros") {
  LogEntry last{.writes = {write(kFile + 8192, 1)}, .last_file_offset = kFile + kSector};
  Replay replayed = replay(log_of({{0, last.build(log_guid())}})).value();
  const ReplayedSource source(std::make_shared<MemorySource>(pattern(kFile, 3)),
                              std::move(replayed.overlay));
  CHECK(source.size() == kFile + 8192 + kSector);
  Bytes tail(16384);
  REQUIRE(source.read_at(kFile - kSector, tail));
  Bytes expected(16384);
  const Bytes file = pattern(kFile, 3);
  const Bytes sector = pattern(kSector, 1);
  std::copy(file.end() - kSector, file.end(), expected.begin());
  std::copy(sector.begin(), sector.end(), expected.end() - kSector);
  CHECK(tail == expected);
  CHECK(source.read_at(kFile, tail).error().kind == ErrorKind::kTruncated);
}

TEST_CASE("vhdx log: an entry may not write where the headers or the log lie, or beyond any file") {
  const auto refused = [](const LogWrite& bad) {
    const auto replayed = replay(log_of({{0, LogEntry{.writes = {bad}}.build(log_guid())}}));
    return !replayed && replayed.error().kind == ErrorKind::kMalformed;
  };
  CHECK(refused(write(0, 1)));
  CHECK(refused(write(64 << 10, 1)));
  CHECK(refused(write((192 << 10) - kSector, 1)));
  CHECK_FALSE(refused(write(192 << 10, 1)));
  CHECK(refused(write(1 << 20, 1)));
  CHECK(refused(write((2 << 20) - kSector, 1)));
  CHECK_FALSE(refused(write(2 << 20, 1)));
  CHECK(refused({.offset = 512 << 10, .zeros = kSector * 129}));
  CHECK_FALSE(refused({.offset = 512 << 10, .zeros = kSector * 128}));
  CHECK(refused({.offset = 2 << 20, .zeros = ~uint64_t{0} - (kSector - 1)}));
  CHECK(refused(write(~uint64_t{0} - (kSector - 1), 1)));
}

TEST_CASE("vhdx log: one full of entries that chain into each other ends") {
  std::vector<std::pair<size_t, Bytes>> entries;
  for (size_t at = 0; at < kLog; at += kSector) {
    entries.emplace_back(at, LogEntry{.sequence_number = at / kSector + 1}.build(log_guid()));
  }
  CHECK(replay(log_of(entries)).value().entries == kLog / kSector);
}

TEST_CASE("vhdx log: entries over each other cost a bounded number of checksums") {
  Bytes log(kLog);
  for (size_t at = 0; at < kLog; at += kSector) {
    LogEntry large{.sequence_number = 1, .padding = kLog - kSector};
    const Bytes bytes = large.build(log_guid());
    std::copy_n(bytes.begin(), kSector, log.begin() + static_cast<std::ptrdiff_t>(at));
  }
  const auto replayed = replay(log);
  REQUIRE_FALSE(replayed);
  CHECK(replayed.error().kind == ErrorKind::kLimit);
}

TEST_CASE("vhdx overlay: later writes cover earlier ones, whole or in part") {
  Overlay overlay;
  const auto at = [&](uint64_t sector, uint64_t sectors = 100) {
    const auto piece = overlay.piece_at(sector * kSector, sectors * kSector);
    return std::pair(piece.kind, piece.length / kSector);
  };
  CHECK(at(0) == std::pair(PieceKind::kUntouched, uint64_t{100}));
  overlay.put_zeros(10 * kSector, 10 * kSector);
  overlay.put_sector(15 * kSector, pattern(kSector, 1));
  CHECK(at(0) == std::pair(PieceKind::kUntouched, uint64_t{10}));
  CHECK(at(10) == std::pair(PieceKind::kZeros, uint64_t{5}));
  CHECK(at(15) == std::pair(PieceKind::kSector, uint64_t{1}));
  CHECK(at(16) == std::pair(PieceKind::kZeros, uint64_t{4}));
  CHECK(at(16, 2) == std::pair(PieceKind::kZeros, uint64_t{2}));
  CHECK(at(20) == std::pair(PieceKind::kUntouched, uint64_t{100}));
  overlay.put_zeros(14 * kSector, 3 * kSector);
  CHECK(at(14) == std::pair(PieceKind::kZeros, uint64_t{3}));
  overlay.put_sector(9 * kSector, pattern(kSector, 2));
  overlay.put_zeros(0, 50 * kSector);
  CHECK(at(0) == std::pair(PieceKind::kZeros, uint64_t{50}));
  const auto inside = overlay.piece_at(100, 200);
  CHECK(inside.length == 200);
}

// An image whose log holds `writes`, and nothing else of them.
VhdxBuilder dirty(std::vector<LogWrite> writes) {
  VhdxBuilder builder = dynamic();
  builder.log_guid = log_guid();
  builder.log = LogEntry{.writes = std::move(writes)}.build(log_guid());
  return builder;
}

TEST_CASE("vhdx replay: the BAT, the metadata and the region tables are what the log says") {
  const Bytes clean = dynamic().build();
  std::vector<LogWrite> writes;
  for (const size_t at : {size_t{192 << 10}, size_t{256 << 10}, VhdxBuilder::kBatAt,
                          VhdxBuilder::kMetadataAt, VhdxBuilder::kItemsAt}) {
    const auto begin = clean.begin() + static_cast<std::ptrdiff_t>(at);
    writes.push_back({.offset = at, .bytes = Bytes(begin, begin + kSector)});
  }
  for (size_t lost = 0; lost < writes.size(); ++lost) {
    Bytes image = dirty(writes).build();
    std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(writes[lost].offset), kSector,
                std::byte{0xee});
    const Opened disk = open(image);
    CHECK(read_all(disk) == content_of(dynamic()));
    CHECK(disk.disk->warnings.size() == 1);
    // The payload is the file's own: a ring may read it.
    const Extent extent = disk.reader().map(kBlock, 100, MapFor::kRead).value();
    CHECK(extent.kind == Kind::kData);
    CHECK(extent.source == disk.reader().sources().front());
  }
}

TEST_CASE("vhdx replay: sectors of blocks that a log rewrites are shown as it says") {
  const uint64_t place = dynamic().block_offset(1) + 3 * kSector;
  const Opened disk =
      open(dirty({write(place, 77), {.offset = place + kSector, .zeros = 8192}}).build());
  Bytes expected = content_of(dynamic());
  std::memcpy(expected.data() + kBlock + 3 * kSector, pattern(kSector, 77).data(), kSector);
  std::fill_n(expected.begin() + kBlock + 4 * kSector, 8192, std::byte{0});
  CHECK(read_all(disk) == expected);
  const Reader& reader = disk.reader();
  const auto kind_at = [&](uint64_t offset) {
    const Extent extent = reader.map(offset, kBlock, MapFor::kRead).value();
    return std::pair(extent.kind, extent.length);
  };
  CHECK(kind_at(kBlock) == std::pair(Kind::kData, uint64_t{3 * kSector}));
  CHECK(kind_at(kBlock + 3 * kSector + 10) == std::pair(Kind::kCopied, uint64_t{kSector - 10}));
  CHECK(kind_at(kBlock + 4 * kSector) == std::pair(Kind::kZero, uint64_t{8192}));
}

TEST_CASE("vhdx replay: blocks that the file was extended for are zeros") {
  VhdxBuilder builder = dynamic();
  builder.log_guid = log_guid();
  const Bytes clean = builder.build();
  builder.log = LogEntry{.writes = {write(VhdxBuilder::kBatAt + kSector, 1)},
                         .flushed_file_offset = clean.size() - kBlock,
                         .last_file_offset = clean.size()}
                    .build(log_guid());
  Bytes image = builder.build();
  image.resize(image.size() - kBlock);
  const Opened disk = open(image);
  Bytes expected = content_of(dynamic());
  std::fill(expected.begin() + 3 * kBlock, expected.end(), std::byte{0});
  CHECK(read_all(disk) == expected);
}

TEST_CASE("vhdx replay: a log that cannot be replayed is a refusal") {
  VhdxBuilder builder = dynamic();
  builder.log_guid = log_guid();
  CHECK(open(builder.build()).says("no whole sequence"));
  builder = dirty({write(kPlace, 1)});
  const auto with = [&](size_t offset, auto value) {
    Bytes image = builder.build();
    set_in_headers(image, offset, value);
    return open(image).error();
  };
  CHECK(with(64, uint16_t{1}) == ErrorKind::kUnsupported);  // LogVersion
  CHECK(with(68, uint32_t{0}) == ErrorKind::kMalformed);    // LogLength
  CHECK(with(68, uint32_t{(1 << 20) + 4096}) == ErrorKind::kMalformed);
  CHECK(with(68, uint32_t{65 << 20}) == ErrorKind::kLimit);
  CHECK(with(72, uint64_t{0}) == ErrorKind::kMalformed);  // LogOffset
  CHECK(with(72, uint64_t{1} << 40) == ErrorKind::kTruncated);
  CHECK(with(72, ~uint64_t{0} << 20) == ErrorKind::kTruncated);
}

}  // namespace
}  // namespace underlay::vhdx::test
