// Damaged and hostile qcow2 images: no failure becomes data, and nothing is unbounded.
#include <algorithm>

#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/qcow2_reader.h"
#include "io/faulty_source.h"
#include "tests/support/qcow2_fixture.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;

constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;

// Tables and clusters of all kinds, spread over the file; the last thing in it is needed.
Qcow2Builder sample(Codec codec) {
  Qcow2Builder builder({.size = 96 << 10, .codec = codec});
  builder.put_data(0, 1);
  builder.put_compressed(1, 2);
  builder.put_zeros(2, true);
  builder.put_zeros(3, false);
  builder.put_data(70, 3);
  builder.put_compressed(71, 4);
  builder.put_data(130, 5);
  builder.put_data(131, 6);
  return builder;
}

// How many clusters could be read; each of them must be the truth.
size_t count_true_clusters(const Disk& disk, const Bytes& truth) {
  size_t good = 0;
  for (size_t at = 0; at < truth.size(); at += 512) {
    const auto read = read_bytes(disk, at, 512);
    if (!read) {
      CHECK(read.error().kind != ErrorKind::kWouldBlock);
      continue;
    }
    ++good;
    CHECK(std::equal(read->begin(), read->end(), truth.begin() + static_cast<ptrdiff_t>(at)));
  }
  return good;
}

// The disk as its reader shows it, without the look at everything when it is opened: as of an image
// whose tables are too large for that.
Result<Disk> open_unlooked(Qcow2Opener& opener, const Bytes& file) {
  const auto header = TRY(parse_qcow2_header(
      ByteSpan(file).first(std::min<size_t>(file.size(), Qcow2Header::kKnownBytes))));
  Qcow2Parts parts;
  parts.file = std::make_shared<MemorySource>(file);
  parts.header = header;
  parts.l1 = {
      .offset = header.l1_table_offset, .entries = header.l1_size, .disk_size = header.size};
  std::vector<Layer> layers;
  layers.push_back(
      {.reader = std::make_unique<Qcow2Reader>(std::move(parts), opener.caches), .path = "image"});
  return Disk(std::move(layers), opener.caches);
}

// Reading the first cluster of an image whose entry for it is this.
Result<Bytes> read_entry(uint64_t entry) {
  Qcow2Builder builder({});
  builder.put_data(1, 1);
  builder.put_entry(0, entry);
  Qcow2Opener opener;
  const auto disk = open_unlooked(opener, builder.file);
  REQUIRE(disk);
  // The other clusters are still served.
  const auto other = read_bytes(*disk, 512, 512);
  REQUIRE(other);
  CHECK(*other == builder.pattern(1, 1));
  return read_bytes(*disk, 0, 512);
}

// Reading a compressed cluster whose stream is this.
Result<Bytes> read_stream(Codec codec, ByteSpan stream) {
  Qcow2Builder builder({.cluster_bits = 16, .size = 1 << 20, .codec = codec});
  builder.put_stream(2, stream);
  Qcow2Opener opener;
  const auto disk = opener.open_disk(builder.file);
  REQUIRE(disk);
  return read_bytes(*disk, 2 << 16, 1 << 16);
}

}  // namespace

TEST_CASE("qcow2: of a file cut at any sector, every read is the truth or fails") {
  for (const Codec codec : {Codec::kDeflate, Codec::kZstd}) {
    const Qcow2Builder builder = sample(codec);
    size_t opened = 0;
    for (size_t length = 0; length < builder.file.size(); length += 512) {
      CAPTURE(length);
      Bytes cut = builder.file;
      cut.resize(length);
      Qcow2Opener opener;
      const auto looked = opener.open_disk(cut);
      if (!looked) {
        CHECK(looked.error().kind == (length == 0 ? ErrorKind::kMalformed : ErrorKind::kTruncated));
      }
      const auto disk = open_unlooked(opener, cut);
      if (!disk) continue;
      ++opened;
      CHECK(count_true_clusters(*disk, builder.truth) < builder.truth.size() / 512);
    }
    CHECK(opened > 0);
  }
}

TEST_CASE("qcow2: of a file cut inside its last cluster, what is there is read") {
  const Qcow2Builder builder = sample(Codec::kDeflate);
  Bytes cut = builder.file;
  cut.resize(cut.size() - 100);
  Qcow2Opener opener;
  const Disk disk = opener.open_disk(cut).value();
  const auto read = read_bytes(disk, 131 * 512, 412);
  REQUIRE(read);
  CHECK(std::equal(read->begin(), read->end(), builder.truth.begin() + 131 * 512));
  check_refused(read_bytes(disk, 131 * 512, 413), ErrorKind::kTruncated, "truncated");
}

TEST_CASE("qcow2: whichever read of the file fails, no byte is wrong, and the next try succeeds") {
  const Qcow2Builder builder = sample(Codec::kDeflate);
  for (int64_t n = 0;; ++n) {
    REQUIRE(n < 1000);
    const auto faulty =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file));
    faulty->fail_read(n);
    Qcow2Opener opener;
    const auto disk = opener.open_disk(faulty);
    if (!disk) {
      REQUIRE(disk.error().kind == ErrorKind::kIo);
      continue;
    }
    const size_t all = builder.truth.size() / 512;
    const size_t good = count_true_clusters(*disk, builder.truth);
    const bool failed = faulty->reads() > static_cast<uint64_t>(n);
    CHECK(good == (failed ? all - 1 : all));
    faulty->fail_read(-1);
    CHECK(count_true_clusters(*disk, builder.truth) == all);
    if (!failed) break;
  }
}

TEST_CASE("qcow2: a cluster that cannot be where its entry says fails, and only that one") {
  constexpr uint64_t kMost = 0x00ff'ffff'ffff'fe00;
  check_refused(read_entry(kMost), ErrorKind::kTruncated, "beyond the end");
  check_refused(read_entry(kCopied | kMost), ErrorKind::kTruncated, "beyond the end");
  check_refused(read_entry(kCopied | 1 << 20), ErrorKind::kTruncated, "beyond the end");
  check_refused(read_entry(~uint64_t{0} & ~kCompressed), ErrorKind::kMalformed, "reserved");
  check_refused(read_entry(kCompressed | 1 << 20), ErrorKind::kTruncated, "beyond the end");
  check_refused(read_entry(kCompressed | ((uint64_t{1} << 56) - 1)), ErrorKind::kTruncated,
                "beyond the end");
  check_refused(read_entry(~uint64_t{0}), ErrorKind::kMalformed, "56 bits");
}

TEST_CASE("qcow2: a file that has lost clusters is found out when it is opened") {
  const auto refused = [](const Qcow2Builder& builder, std::string_view words) {
    Bytes cut = builder.file;
    REQUIRE(Qcow2Opener().open(cut));
    cut.resize((cut.size() - 1) / 512 * 512);
    Qcow2Opener opener;
    check_refused(opener.open(cut), ErrorKind::kTruncated, words);
  };
  Qcow2Builder data({});
  data.put_data(5, 1);
  refused(data, "the cluster of guest offset 2560 lies at");
  Qcow2Builder compressed({});
  compressed.put_compressed(6, 1);
  refused(compressed, "the cluster of guest offset 3072 lies at");
  Qcow2Builder far({.size = 4 << 20});
  far.put_data(0, 1);
  far.put_data(8191, 1);
  refused(far, "the cluster of guest offset 4193792 lies at");
  // Of an extended cluster, only what is stored counts.
  Qcow2Builder parts({.cluster_bits = 14, .size = 1 << 20, .extended_l2 = true});
  parts.put_data(0, 1);
  parts.set64(parts.l2_entry_offset(0) + 8, 0x8000'0000);
  refused(parts, "the cluster of guest offset 0 lies at");
  parts.set64(parts.l2_entry_offset(0) + 8, 0x4000'0000);
  parts.file.resize(parts.file.size() - 512);
  CHECK(Qcow2Opener().open(parts.file));
}

TEST_CASE("qcow2: the look at clusters when an image is opened is bounded") {
  constexpr uint64_t kTables = Qcow2Reader::kMaxCheckedL2Bytes / 512;
  Qcow2Builder builder({.size = (kTables + 2) * 64 * 512});
  for (uint64_t table = 0; table < kTables; ++table) (void)builder.l2_entry_offset(table * 64);
  builder.put_entry(kTables * 64, kCopied | 1 << 30);
  const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file));
  Qcow2Opener opener;
  const auto disk = opener.open_disk(source);
  REQUIRE(disk);
  CHECK(source->reads() < 2 + 2 * (builder.file.size() / Metadata::kSliceBytes + 2));
  check_refused(read_bytes(*disk, kTables * 64 * 512, 512), ErrorKind::kTruncated,
                "beyond the end");
  builder.put_entry((kTables - 1) * 64, kCopied | 1 << 30);
  check_refused(opener.open(builder.file), ErrorKind::kTruncated, "beyond the end");
}

TEST_CASE("qcow2: structures that overlap or lie beyond the end are found when it is opened") {
  const auto refused = [](const auto& damage, ErrorKind kind, std::string_view words) {
    Qcow2Builder builder({});
    builder.append(Bytes(512));
    damage(builder);
    Qcow2Opener opener;
    check_refused(opener.open(builder.file), kind, words);
  };
  const auto refcounts = [](uint64_t offset, uint32_t clusters) {
    return [=](Qcow2Builder& builder) {
      builder.set64(48, offset);
      builder.set32(56, clusters);
    };
  };
  refused(refcounts(512, 1), ErrorKind::kMalformed,
          "the L1 table (16 bytes at 512) and the refcount");
  refused(refcounts(0, 1), ErrorKind::kMalformed, "the header's cluster (512 bytes at 0) and the");
  refused(refcounts(1024, 0xffffffff), ErrorKind::kTruncated, "the refcount table has");
  refused(refcounts(~uint64_t{511}, 1), ErrorKind::kTruncated, "the refcount table has");
  const auto snapshots = [](uint64_t offset, uint32_t count) {
    return [=](Qcow2Builder& builder) {
      builder.set64(64, offset);
      builder.set32(60, count);
    };
  };
  refused(snapshots(1 << 20, 1), ErrorKind::kTruncated, "the snapshot table has 40 bytes");
  refused(snapshots(512, 1), ErrorKind::kMalformed, "and the snapshot table");
  refused(
      [](Qcow2Builder& builder) {
        builder.put_bitmaps({{.name = "b", .table = {0}}});
        builder.set64(112 + 8 + 16, 512);
      },
      ErrorKind::kMalformed, "and the bitmap directory (32 bytes at 512) overlap");
}

TEST_CASE("qcow2: tables are not served as data") {
  const Qcow2Builder layout = [] {
    Qcow2Builder builder({});
    builder.put_data(1, 1);
    return builder;
  }();
  const uint64_t l2 = layout.get64(layout.l1_entry_offset(0)) & ~kCopied;
  check_refused(read_entry(kCopied | l2), ErrorKind::kMalformed, "table");
  check_refused(read_entry(kCopied | layout.l1_offset()), ErrorKind::kMalformed, "table");
}

TEST_CASE(
    "qcow2: where refcounts, snapshots or other L2 tables lie is neither data nor an L2 table") {
  Qcow2Builder builder({.size = 96 << 10});
  builder.put_data(0, 1);
  builder.put_data(64, 2);
  const uint64_t table = builder.put_refcounts();
  const uint64_t block = builder.get64(table);
  const uint64_t other_l2 = builder.get64(builder.l1_entry_offset(64)) & ~kCopied;
  const uint64_t l2 = builder.get64(builder.l1_entry_offset(0)) & ~kCopied;
  for (const uint64_t place : {table, block, other_l2}) {
    CAPTURE(place);
    Qcow2Builder data = builder;
    data.set64(l2, kCopied | place);
    Qcow2Opener opener;
    const auto disk = opener.open_disk(data.file);
    REQUIRE(disk);
    check_refused(read_bytes(*disk, 0, 512), ErrorKind::kMalformed, "refcounts");
    CHECK(read_bytes(*disk, 64 * 512, 512));
    if (place == other_l2) continue;
    Qcow2Builder tables = builder;
    tables.set64(builder.l1_entry_offset(0), kCopied | place);
    check_refused(opener.open(tables.file), ErrorKind::kMalformed, "refcounts");
  }
}

TEST_CASE("qcow2: a refcount table that lies askew does not keep the opening busy") {
  Qcow2Builder builder({.size = 96 << 10});
  builder.put_data(0, 1);
  const uint64_t table = builder.put_refcounts();
  for (const uint64_t step : {1u, 4u, 8u, 511u}) {
    builder.set64(48, table + step);
    Qcow2Opener opener;
    const auto disk = opener.open_disk(builder.file);
    if (disk) CHECK(read_bytes(*disk, 0, 512).value() == builder.pattern(0, 1));
  }
}

TEST_CASE("qcow2: an L1 entry that is wrong is found when the image is opened") {
  const auto open_with = [](uint64_t entry) {
    Qcow2Builder builder({.size = 96 << 10});
    builder.put_data(0, 1);
    builder.set64(builder.l1_entry_offset(64), entry);
    Qcow2Opener opener;
    const auto reader = opener.open(builder.file);
    return reader ? Result<int>(0) : Result<int>(Failure(reader.error()));
  };
  const auto refused = [&](uint64_t entry, ErrorKind kind, std::string_view words) {
    check_refused(open_with(entry), kind, words);
  };
  refused(kCopied | 1 << 20, ErrorKind::kTruncated, "L1 entry 1 names an L2 table");
  refused(0x00ff'ffff'ffff'fe00, ErrorKind::kTruncated, "L1 entry 1");
  refused(kCopied | 512, ErrorKind::kMalformed, "an L1 table");
  refused(~uint64_t{0}, ErrorKind::kMalformed, "reserved");
}

TEST_CASE("qcow2: an L1 table too large to be checked when opened is checked when used") {
  Qcow2Builder builder({.cluster_bits = 9, .size = uint64_t{140000} << 15});
  builder.set64(builder.l1_entry_offset(0), 1 << 30);
  builder.set64(builder.l1_entry_offset(64), builder.l1_offset());
  builder.set64(builder.l1_entry_offset(128), 3);
  REQUIRE(builder.get64(40) + 140000 * 8 > Qcow2Reader::kMaxCheckedL1Bytes);
  Qcow2Opener opener;
  const auto disk = opener.open_disk(builder.file);
  REQUIRE(disk);
  check_refused(read_bytes(*disk, 0, 512), ErrorKind::kTruncated, "L1 entry 0");
  check_refused(read_bytes(*disk, 64 * 512, 512), ErrorKind::kMalformed, "L1 entry 1");
  check_refused(read_bytes(*disk, 128 * 512, 512), ErrorKind::kMalformed, "reserved");
  CHECK(read_bytes(*disk, 192 * 512, 512).value() == Bytes(512));
}

TEST_CASE("qcow2: L1 entries behind the disk's end are nobody's") {
  Qcow2Builder builder({.size = 512, .l1_entries = 4});
  builder.set64(builder.l1_offset() + 8, ~uint64_t{0});
  Qcow2Opener opener;
  CHECK(opener.open(builder.file));
}

TEST_CASE("qcow2: a header costs no memory and no reads for what it only claims") {
  Qcow2Builder builder({.cluster_bits = 16, .size = 1 << 20});
  builder.set32(36, (32 << 20) / 8);
  const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file));
  Qcow2Opener opener;
  check_refused(opener.open(source), ErrorKind::kTruncated, "the L1 table has 33554432 bytes");
  CHECK(source->reads() <= 2);
  CHECK(opener.caches.tables.used() == 0);
}

TEST_CASE("qcow2: tables in memory stay within the budget of the cache") {
  Qcow2Builder builder({.size = 16 << 20});
  for (uint64_t cluster = 0; cluster < (16 << 20) / 512; cluster += 40)
    builder.put_data(cluster, 1);
  constexpr uint64_t kBudget = 64 << 10;
  Caches caches({.tables = kBudget, .clusters = kBudget});
  FilesInMemory files;
  ImageOptions options;
  std::vector<std::string> warnings;
  const auto reader = open_qcow2({.source = std::make_shared<MemorySource>(builder.file),
                                  .path = "image",
                                  .files = files,
                                  .caches = caches,
                                  .options = options,
                                  .warnings = warnings});
  REQUIRE(reader);
  for (uint64_t at = 0; at < (16 << 20); at += 512) REQUIRE((*reader)->map(at, 512, MapFor::kRead));
  CHECK(caches.tables.used() > 0);
  CHECK(caches.tables.used() <= kBudget);
}

TEST_CASE("qcow2 compressed: a stream that is too short, damaged or empty fails") {
  const Bytes cluster = Qcow2Builder({.cluster_bits = 16}).pattern(2, 1);
  for (const Codec codec : {Codec::kDeflate, Codec::kZstd}) {
    const Bytes stream = pack(codec, cluster);
    CHECK(read_stream(codec, stream).value() == cluster);
    const Bytes fewer = pack(codec, ByteSpan(cluster).first(cluster.size() - 1));
    check_refused(read_stream(codec, fewer), ErrorKind::kMalformed, "guest offset 131072");
    check_refused(read_stream(codec, Bytes(512, std::byte{0xff})), ErrorKind::kMalformed, "");
    check_refused(read_stream(codec, Bytes(512)), ErrorKind::kMalformed, "");
  }
}

TEST_CASE("qcow2 compressed: a stream that has more to give than a cluster is read to its end") {
  Bytes cluster = Qcow2Builder({.cluster_bits = 16}).pattern(2, 1);
  Bytes longer = cluster;
  longer.resize(longer.size() + 5000, std::byte{7});
  for (const Codec codec : {Codec::kDeflate, Codec::kZstd}) {
    CHECK(read_stream(codec, pack(codec, longer)).value() == cluster);
  }
}

TEST_CASE("qcow2 compressed: windows up to the format's are read, larger zstd ones refused") {
  const Bytes cluster = Qcow2Builder({.cluster_bits = 16}).pattern(2, 1);
  CHECK(read_stream(Codec::kDeflate, pack(Codec::kDeflate, cluster, 15)).value() == cluster);
  // A zstd frame whose window is 2^31 bytes, and an empty last block.
  constexpr uint8_t kHuge[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00};
  check_refused(read_stream(Codec::kZstd, std::as_bytes(std::span(kHuge))), ErrorKind::kMalformed,
                "memory");
}

TEST_CASE("qcow2 compressed: a cluster may be several zstd frames") {
  const Bytes cluster = Qcow2Builder({.cluster_bits = 16}).pattern(2, 1);
  Bytes stream = pack(Codec::kZstd, ByteSpan(cluster).first(1000));
  const Bytes second = pack(Codec::kZstd, ByteSpan(cluster).subspan(1000));
  stream.insert(stream.end(), second.begin(), second.end());
  CHECK(read_stream(Codec::kZstd, stream).value() == cluster);
}

TEST_CASE("qcow2 compressed: the last sector may end with the file instead of being filled up") {
  Qcow2Builder builder({.cluster_bits = 16, .size = 1 << 20});
  builder.put_compressed(0, 1);
  REQUIRE(builder.file.size() % 512 != 0);
  Qcow2Opener opener;
  const Disk disk = opener.open_disk(builder.file).value();
  CHECK(read_bytes(disk, 0, 1 << 20).value() == builder.truth);
  // Cut inside the stream.
  builder.file.resize(builder.file.size() - 100);
  const Disk cut = opener.open_disk(builder.file).value();
  check_refused(read_bytes(cut, 0, 512), ErrorKind::kMalformed, "gave");
}

TEST_CASE("qcow2 snapshots: a table or an L1 table that cannot be one is refused") {
  const auto open_with = [](Qcow2Builder::Snapshot snapshot, size_t cut = 0) {
    Qcow2Builder builder({});
    builder.put_snapshots({snapshot});
    builder.file.resize(builder.file.size() - cut);
    Qcow2Opener opener;
    opener.options.snapshot.emplace("1");
    auto reader = opener.open(builder.file);
    return reader ? Result<int>(0) : Result<int>(Failure(reader.error()));
  };
  const Qcow2Builder::Snapshot good{
      .id = "1", .name = "a", .l1_offset = 512, .l1_entries = 2, .disk_size = 64 << 10};
  CHECK(open_with(good));
  check_refused(open_with(good, 16), ErrorKind::kTruncated, "snapshot table");
  check_refused(open_with(good, 50), ErrorKind::kTruncated, "snapshot table");
  auto wrong = good;
  wrong.l1_offset = 513;
  check_refused(open_with(wrong), ErrorKind::kMalformed, "snapshot \"1\": l1_table_offset is 513");
  wrong.l1_offset = 1 << 20;
  check_refused(open_with(wrong), ErrorKind::kTruncated, "the L1 table");
  wrong = good;
  wrong.l1_entries = 1;
  check_refused(open_with(wrong), ErrorKind::kMalformed, "l1_size is 1");
  wrong.l1_entries = 0xffffffff;
  check_refused(open_with(wrong), ErrorKind::kLimit, "l1_size is 4294967295");
  wrong = good;
  wrong.disk_size = ~uint64_t{0};
  check_refused(open_with(wrong), ErrorKind::kMalformed, "l1_size");
  wrong = good;
  wrong.extra_bytes = 1032;
  check_refused(open_with(wrong), ErrorKind::kLimit, "extra data");
  wrong.extra_bytes = 8;
  check_refused(open_with(wrong), ErrorKind::kMalformed, "disk's size");
}

TEST_CASE("qcow2 data file: a cluster beyond its end is found when it is opened") {
  Qcow2Builder builder({.external_data = true});
  builder.add_extension(0x44415441, "disk.data");
  builder.put_data(0, 1);
  builder.put_data(9, 1);
  Qcow2Opener opener;
  opener.files.files["disk.data"] =
      std::make_shared<MemorySource>(builder.pattern(0, 1), "disk.data");
  check_refused(opener.open(builder.file), ErrorKind::kTruncated, "disk.data");
  builder.put_entry(9, 0);
  const Disk disk = opener.open_disk(builder.file).value();
  CHECK(read_bytes(disk, 0, 512).value() == builder.pattern(0, 1));
}

}  // namespace underlay
