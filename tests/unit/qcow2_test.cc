// What the qcow2 reader shows of good images, and how it opens them.
#include "formats/qcow2/qcow2.h"

#include "formats/qcow2/qcow2_reader.h"
#include "tests/support/qcow2_fixture.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using Kind = Extent::Kind;

// Every kind of cluster, twice, beside each other and alone.
Qcow2Builder mixed_image(const Qcow2Builder::Options& options) {
  Qcow2Builder builder(options);
  for (const uint64_t start : {uint64_t{0}, options.size / builder.cluster_size() / 2}) {
    builder.put_data(start, 1);
    builder.put_data(start + 1, 2);
    builder.put_zeros(start + 3, true);
    if (options.version >= 3) builder.put_zeros(start + 4, false);
    builder.put_compressed(start + 5, 3);
    builder.put_compressed(start + 6, 4);
    builder.put_data(start + 7, 5);
  }
  return builder;
}

Qcow2Builder mixed_v2(uint32_t bits) {
  Qcow2Builder builder({.version = 2, .cluster_bits = bits, .size = uint64_t{16} << bits});
  builder.put_data(1, 1);
  builder.put_compressed(2, 2);
  builder.put_data(15, 3);
  return builder;
}

// A file that says which one it is.
class IdentifiedSource final : public Source {
 public:
  explicit IdentifiedSource(Bytes bytes) : memory_(std::move(bytes)) {}
  const std::string& name() const override { return memory_.name(); }
  uint64_t size() const override { return memory_.size(); }
  Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
    return memory_.read_at(offset, out);
  }
  std::optional<FileIdentity> identity() const override {
    return FileIdentity{.device = 1, .inode = 2};
  }

 private:
  MemorySource memory_;
};

}  // namespace

TEST_CASE("qcow2: all kinds of cluster show their content, at every cluster size") {
  for (uint32_t bits = 9; bits <= 21; bits += bits < 18 ? 1 : 3) {
    for (const Codec codec : {Codec::kDeflate, Codec::kZstd}) {
      CAPTURE(bits);
      const uint64_t size = (uint64_t{20} << bits) - 512;
      const Qcow2Builder builder =
          mixed_image({.cluster_bits = bits, .size = size, .codec = codec});
      Qcow2Opener opener;
      const auto disk = opener.open_disk(builder.file);
      REQUIRE_MESSAGE(disk, disk.error().to_string());
      CHECK(read_bytes(*disk, 0, size).value() == builder.truth);
    }
    const Qcow2Builder v2 = mixed_v2(bits);
    Qcow2Opener opener;
    CHECK(read_bytes(opener.open_disk(v2.file).value(), 0, v2.truth.size()).value() == v2.truth);
  }
}

TEST_CASE("qcow2: reads at every boundary and in between show the same") {
  // The second half's clusters come after L1 entries without L2 table.
  const Qcow2Builder builder = mixed_image({.size = 256 << 10});
  Qcow2Opener opener;
  const Disk disk = opener.open_disk(builder.file).value();
  for (uint64_t offset = 0; offset < builder.truth.size(); offset += 1713) {
    for (const uint64_t length : {1u, 511u, 512u, 1025u, 6000u, 200000u}) {
      if (offset + length > builder.truth.size()) continue;
      const Bytes read = read_bytes(disk, offset, length).value();
      CHECK(std::equal(read.begin(), read.end(),
                       builder.truth.begin() + static_cast<ptrdiff_t>(offset)));
    }
  }
}

TEST_CASE("qcow2: a size that is no multiple of a sector keeps its last bytes") {
  Qcow2Builder builder({.size = 1000});
  builder.put_data(1, 1);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE(reader);
  CHECK((*reader)->size() == 1000);
  CHECK((*reader)->map(512, 488, MapFor::kRead)->length == 488);
}

TEST_CASE("qcow2 map: clusters that follow each other in the file are one extent") {
  Qcow2Builder builder({});
  for (const uint64_t cluster : {8u, 9u, 10u, 12u, 11u}) builder.put_data(cluster, 1);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE(reader);
  const Extent run = (*reader)->map(8 * 512 + 100, 60000, MapFor::kRead).value();
  CHECK(run.kind == Kind::kData);
  CHECK(run.length == 3 * 512 - 100);
  CHECK(run.source == (*reader)->sources().front());
  CHECK(run.source_offset == builder.get64(builder.l2_entry_offset(8)) % (1ull << 63) + 100);
  CHECK((*reader)->map(8 * 512, 700, MapFor::kRead)->length == 700);
  CHECK((*reader)->map(11 * 512, 4096, MapFor::kRead)->length == 512);
}

TEST_CASE("qcow2 map: a run ends with its L2 table, whatever lies behind that in the file") {
  Qcow2Builder builder({});
  (void)builder.l2_entry_offset(0);
  builder.append(Bytes(512));
  builder.put_data(64, 1);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE(reader);
  CHECK((*reader)->map(0, 64 << 10, MapFor::kRead)->length == 64 * 512);
  CHECK((*reader)->map(64 * 512, 512, MapFor::kRead)->kind == Kind::kData);
}

TEST_CASE("qcow2 map: zero clusters are one extent, apart from those with space set aside") {
  Qcow2Builder builder({});
  for (const uint64_t cluster : {1u, 2u, 3u}) builder.put_zeros(cluster, false);
  for (const uint64_t cluster : {4u, 5u}) builder.put_zeros(cluster, true);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE(reader);
  const Extent plain = (*reader)->map(512, 60000, MapFor::kStatus).value();
  CHECK(plain.kind == Kind::kZero);
  CHECK_FALSE(plain.reserved);
  CHECK(plain.length == 3 * 512);
  const Extent reserved = (*reader)->map(4 * 512, 60000, MapFor::kStatus).value();
  CHECK(reserved.kind == Kind::kZero);
  CHECK(reserved.reserved);
  CHECK(reserved.length == 2 * 512);
}

TEST_CASE("qcow2 map: one L1 slice of missing L2 tables is one extent, of a 64 TiB disk too") {
  Qcow2Builder builder({.cluster_bits = 16, .size = uint64_t{64} << 40});
  builder.put_data((uint64_t{32} << 40 >> 16) + 7, 1);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE_MESSAGE(reader, reader.error().to_string());
  const uint64_t size = (*reader)->size();
  uint64_t calls = 0;
  uint64_t data_at = 0;
  for (uint64_t at = 0; at < size; ++calls) {
    const Extent extent = (*reader)->map(at, size - at, MapFor::kStatus).value();
    if (extent.kind == Kind::kData) data_at = at;
    at += extent.length;
  }
  CHECK(data_at == (uint64_t{32} << 40) + (7 << 16));
  // 131072 L1 entries are 64 slices; the L2 table and the data add a few.
  CHECK(calls < 80);
}

TEST_CASE("qcow2 map: subclusters that are not allocated are the parent's") {
  Qcow2Builder builder({.cluster_bits = 14, .size = 1 << 20, .extended_l2 = true});
  builder.put_data(0, 1);
  builder.set64(builder.l2_entry_offset(0) + 8, uint64_t{0x00f0} << 32 | 0xf003);
  builder.put_data(1, 2);
  builder.put_entry(2, 0, uint64_t{1} << 63);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE(reader);
  struct Expected {
    Kind kind;
    uint64_t parts;
    bool reserved;
  };
  const Expected expected[] = {
      {Kind::kData, 2, false},   {Kind::kParent, 2, false},  {Kind::kZero, 4, true},
      {Kind::kParent, 4, false}, {Kind::kData, 4, false},    {Kind::kParent, 16, false},
      {Kind::kData, 32, false},  {Kind::kParent, 31, false}, {Kind::kZero, 1, false}};
  uint64_t at = 0;
  for (const Expected& one : expected) {
    CAPTURE(at);
    const Extent extent = (*reader)->map(at, (1 << 20) - at, MapFor::kRead).value();
    CHECK(extent.kind == one.kind);
    CHECK(extent.reserved == one.reserved);
    CHECK(extent.length == one.parts * 512);
    at += extent.length;
  }
  CHECK((*reader)->map(100, 2000, MapFor::kRead)->length == 924);
}

TEST_CASE("qcow2 map: without waiting, only what is in memory is answered") {
  // The first L2 tables are in memory since the image was opened.
  constexpr uint64_t kTables = Qcow2Reader::kMaxCheckedL2Bytes >> 16;
  constexpr uint64_t kClusters = 8192;  // of one L2 table
  Qcow2Builder builder({.cluster_bits = 16, .size = (kTables + 1) * kClusters << 16});
  for (uint64_t i = 0; i <= kTables; ++i) builder.put_data(i * kClusters, 1);
  Qcow2Opener opener;
  const auto reader = opener.open(builder.file);
  REQUIRE(reader);
  CHECK((*reader)->map(0, 512, MapFor::kReadNow)->kind == Kind::kData);
  constexpr uint64_t kOffset = kTables * kClusters << 16;
  CHECK((*reader)->map(kOffset, 512, MapFor::kReadNow).error().kind == ErrorKind::kWouldBlock);
  REQUIRE((*reader)->map(kOffset, 512, MapFor::kRead));
  CHECK((*reader)->map(kOffset, 512, MapFor::kReadNow)->kind == Kind::kData);
}

TEST_CASE("qcow2: the backing file is named with the format that the image states") {
  Qcow2Builder builder({});
  builder.add_extension(0xe2792aca, "raw");
  builder.set_backing_name("../base:1.img");
  Qcow2Opener opener;
  const auto link = opener.open(builder.file).value()->parent();
  REQUIRE(link);
  CHECK(link->names == std::vector<std::string>{"../base:1.img"});
  CHECK(link->format == "raw");

  Qcow2Builder unstated({});
  unstated.set_backing_name("base.img");
  CHECK_FALSE(opener.open(unstated.file).value()->parent()->format);
  CHECK_FALSE(opener.open(Qcow2Builder({}).file).value()->parent());
}

TEST_CASE("qcow2: protocols are never followed, as backing file or as data file") {
  for (const std::string_view name :
       {"json:{\"driver\":\"raw\"}", "nbd://host/x", "nbd:unix:/x", "rbd:pool/x", "ssh://h/x",
        "file:base.img", "fat:rw:/", "https://host/x", "a+b-c.d://x", ":x"}) {
    CAPTURE(name);
    Qcow2Opener opener;
    Qcow2Builder backing({});
    backing.set_backing_name(name);
    check_refused(opener.open(backing.file), ErrorKind::kDenied, "protocol");
    Qcow2Builder data({.external_data = true});
    data.add_extension(0x44415441, name);
    check_refused(opener.open(data.file), ErrorKind::kDenied, "protocol");
    CHECK(opener.files.asked.empty());
  }
}

TEST_CASE("qcow2 data file: clusters are read from it, at their guest offset") {
  Qcow2Builder builder({.cluster_bits = 12, .size = 64 << 10, .external_data = true});
  builder.add_extension(0x44415441, "disk.data");
  for (const uint64_t cluster : {0u, 1u, 5u}) builder.put_data(cluster, 9);
  builder.put_entry(2, 1);
  Qcow2Opener opener;
  Bytes data(64 << 10, std::byte{0xee});
  std::copy_n(builder.truth.begin(), 8192, data.begin());
  std::copy_n(builder.truth.begin() + 5 * 4096, 4096, data.begin() + 5 * 4096);
  opener.files.files["disk.data"] = std::make_shared<MemorySource>(data);
  const auto disk = opener.open_disk(builder.file);
  REQUIRE_MESSAGE(disk, disk.error().to_string());
  CHECK(read_bytes(*disk, 0, builder.truth.size()).value() == builder.truth);
  CHECK(disk->layers().front().reader->sources().size() == 2);
}

TEST_CASE("qcow2 data file: one that is missing, unnamed, or the image itself is refused") {
  Qcow2Opener opener;
  Qcow2Builder builder({.external_data = true});
  check_refused(opener.open(builder.file), ErrorKind::kMalformed, "does not name");
  builder.add_extension(0x44415441, "disk.data");
  check_refused(opener.open(builder.file), ErrorKind::kNotFound, "not there");
  const auto itself = std::make_shared<IdentifiedSource>(builder.file);
  opener.files.files["disk.data"] = itself;
  check_refused(opener.open(itself), ErrorKind::kMalformed, "itself");
}

TEST_CASE("qcow2 data file: what excludes each other is refused") {
  Qcow2Opener opener;
  opener.files.files["disk.data"] = std::make_shared<MemorySource>(Bytes(64 << 10));
  Qcow2Builder builder({.external_data = true});
  builder.add_extension(0x44415441, "disk.data");
  REQUIRE(opener.open(builder.file));
  opener.options.snapshot = "1";
  check_refused(opener.open(builder.file), ErrorKind::kUnsupported, "no internal snapshots");
  opener.options.snapshot.reset();
  builder.set_backing_name("base.img");
  REQUIRE(opener.open(builder.file));
  builder.set64(88, 2);
  check_refused(opener.open(builder.file), ErrorKind::kMalformed, "exclude each other");
}

TEST_CASE("qcow2 snapshots: one shows its own content and size, found by id before name") {
  Qcow2Builder builder({.size = 8 << 10});
  builder.put_data(0, 1);
  const uint64_t l1 = builder.append(Bytes(8));
  const uint64_t l2 = builder.append(Bytes(512));
  const uint64_t cluster = builder.append(builder.pattern(3, 7));
  builder.set64(l1, l2);
  builder.set64(l2 + 3 * 8, cluster);
  const Qcow2Builder::Snapshot good{
      .id = "7", .name = "before", .l1_offset = l1, .l1_entries = 1, .disk_size = 4 << 10};
  const Qcow2Builder::Snapshot other{.id = "8", .name = "7", .disk_size = 0};
  builder.put_snapshots({other, good});
  Bytes truth(4 << 10);
  std::ranges::copy(builder.pattern(3, 7), truth.begin() + 3 * 512);

  for (const char* wanted : {"7", "before"}) {
    Qcow2Opener opener;
    opener.options.snapshot = wanted;
    const auto disk = opener.open_disk(builder.file);
    REQUIRE_MESSAGE(disk, disk.error().to_string());
    CHECK(disk->size() == 4 << 10);
    CHECK(read_bytes(*disk, 0, 4 << 10).value() == truth);
  }
  Qcow2Opener opener;
  CHECK(read_bytes(opener.open_disk(builder.file).value(), 0, 8 << 10).value() == builder.truth);
}

TEST_CASE("qcow2 snapshots: a name that two of them have is refused") {
  Qcow2Builder builder({});
  builder.put_snapshots({{.id = "1", .name = "before"}, {.id = "2", .name = "before"}});
  Qcow2Opener opener;
  opener.options.snapshot = "before";
  check_refused(opener.open(builder.file), ErrorKind::kMalformed, "two snapshots");
}

TEST_CASE("qcow2 snapshots: an unknown one is refused with some of those that there are") {
  Qcow2Opener opener;
  opener.options.snapshot = "nightly";
  Qcow2Builder builder({});
  check_refused(opener.open(builder.file), ErrorKind::kNotFound, "there are: none");
  std::vector<Qcow2Builder::Snapshot> snapshots(
      65536, {.id = "1", .name = "a\nname", .l1_offset = 512, .l1_entries = 16});
  builder.put_snapshots(snapshots);
  const auto refused = opener.open(builder.file);
  check_refused(refused, ErrorKind::kNotFound, "1 (\"a\\x0aname\")");
  check_refused(refused, ErrorKind::kNotFound, "and 65520 more");
  CHECK(refused.error().message.size() < 1000);
}

TEST_CASE("qcow2: images that were left dirty or marked corrupt are read, with a warning") {
  for (const uint64_t bit : {1u, 2u}) {
    Qcow2Builder builder({});
    builder.put_data(0, 1);
    builder.set64(72, bit);
    Qcow2Opener opener;
    const auto disk = opener.open_disk(builder.file);
    REQUIRE(disk);
    CHECK(read_bytes(*disk, 0, builder.truth.size()).value() == builder.truth);
    REQUIRE(opener.warnings.size() == 1);
    CHECK(opener.warnings.front().find(bit == 1 ? "dirty bit" : "corrupt bit") !=
          std::string::npos);
  }
}

}  // namespace underlay
