// VMDK: the sparse extents of ESX snapshots, COWD (vmfsSparse) and seSparse.
#include <doctest/doctest.h>

#include <algorithm>

#include "formats/vmdk/vmdk_layout.h"
#include "io/store_le.h"
#include "tests/support/vmdk_esx_builder.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

using Kind = Extent::Kind;

Opened open_cowd(const BuiltEsx& extent, uint64_t sectors) {
  FilesInMemory files;
  files.files["extent"] = in_memory(extent.bytes);
  return Opened(in_memory(esx_descriptor("vmfsSparse", "VMFSSPARSE", sectors)), files);
}

Opened open_se_sparse(const BuiltEsx& extent, uint64_t sectors) {
  FilesInMemory files;
  files.files["extent"] = in_memory(extent.bytes);
  return Opened(in_memory(esx_descriptor("seSparse", "SESPARSE", sectors)), files);
}

// One kind of extent, so that a rule of both is told once.
struct EsxKind {
  BuiltEsx (*build)(ByteSpan, uint64_t);
  Opened (*open)(const BuiltEsx&, uint64_t);
  uint64_t option;       // of build
  uint64_t grain_bytes;  // that follow
};
const std::vector<EsxKind>& kinds() {
  static const std::vector<EsxKind> all = {{build_cowd, open_cowd, 8, 4096},
                                           {build_se_sparse, open_se_sparse, 0, 4096}};
  return all;
}

void check_refused(const Opened& opened, std::string_view why) {
  CAPTURE(why);
  REQUIRE_FALSE(opened.result);
  CAPTURE(opened.result.error().message);
  CHECK(opened.result.error().message.find(why) != std::string::npos);
}

TEST_CASE("vmdk cowd: reads as its content, whatever its grain size") {
  const auto content = vmdk_content(5 << 20, 1, 3 << 20);
  for (const uint64_t grain_size : {1u, 2u, 8u, 128u}) {
    CAPTURE(grain_size);
    const Opened opened = open_cowd(build_cowd(content, grain_size), content.size() / 512);
    CHECK(read_all(opened).value_or(Bytes{}) == content);
    CHECK(opened.reader().cluster_size() == grain_size * 512);
    CHECK(opened.warnings.empty());
  }
}

TEST_CASE("vmdk sesparse: reads as its content, wherever its grains lie") {
  const auto content = vmdk_content(40 << 20, 2, 3 << 20);
  // From number 4096 on, the number's upper bits are in the entry's lower ones.
  for (const uint64_t first : {0u, 5000u}) {
    CAPTURE(first);
    const Opened opened = open_se_sparse(build_se_sparse(content, first), content.size() / 512);
    REQUIRE(opened.result);
    CHECK(read_all(opened).value_or(Bytes{}) == content);
    CHECK(opened.reader().cluster_size() == 4096);
  }
}

TEST_CASE("vmdk esx: stored grains that follow each other are one run, absent tables another") {
  auto content = vmdk_content(48 << 20, 3, 0);
  for (const size_t grain : {0u, 1u, 2u, 5u}) content[grain * 4096] = std::byte{7};
  for (const EsxKind& kind : kinds()) {
    const BuiltEsx image = kind.build(content, kind.option);
    const Opened opened = kind.open(image, content.size() / 512);
    REQUIRE(opened.result);
    const auto map = [&](uint64_t offset) {
      return opened.reader().map(offset, content.size() - offset, MapFor::kRead).value();
    };
    CHECK(map(100).kind == Kind::kData);
    CHECK(map(100).length == 3 * 4096 - 100);
    CHECK(map(3 * 4096).kind == Kind::kParent);
    CHECK(map(3 * 4096).length == 2 * 4096);
    CHECK(map(16 << 20).kind == Kind::kParent);
    CHECK(map(16 << 20).length == 32 << 20);
  }
}

TEST_CASE("vmdk sesparse: zeroed and unmapped grains are zeros and hide the parent") {
  const auto content = vmdk_content(1 << 20, 4, 1 << 20);
  BuiltEsx image = build_se_sparse(content);
  image.set_entry(0, uint64_t{1} << 60 | 0x123456);  // unmapped; where it was does not matter
  image.set_entry(1, uint64_t{2} << 60);
  image.set_entry(2, 0);
  const Opened opened = open_se_sparse(image, content.size() / 512);
  REQUIRE(opened.result);
  const auto zero = opened.reader().map(0, 1 << 20, MapFor::kRead);
  REQUIRE(zero);
  CHECK(zero->kind == Kind::kZero);
  CHECK(zero->length == 2 * 4096);
  CHECK(opened.reader().map(2 * 4096, 4096, MapFor::kRead)->kind == Kind::kParent);
}

TEST_CASE("vmdk sesparse: entries with a state that the format does not have are refused") {
  const auto content = vmdk_content(1 << 20, 5, 1 << 20);
  const BuiltEsx good = build_se_sparse(content);
  for (const uint64_t entry : {uint64_t{1}, uint64_t{4} << 60, uint64_t{15} << 60, ~uint64_t{0}}) {
    CAPTURE(entry);
    BuiltEsx image = good;
    image.set_entry(3, entry);
    check_refused(open_se_sparse(image, content.size() / 512), "has no meaning");
  }
  for (const uint64_t entry :
       {uint64_t{1}, uint64_t{0x20000000} << 32, uint64_t{0x10000001} << 32, ~uint64_t{0}}) {
    CAPTURE(entry);
    BuiltEsx image = good;
    image.set_directory_entry(0, entry);
    check_refused(open_se_sparse(image, content.size() / 512), "no grain table");
  }
}

TEST_CASE("vmdk sesparse: a journal that must be replayed is refused, and what to do is said") {
  const auto content = vmdk_content(1 << 20, 6, 1 << 20);
  BuiltEsx image = build_se_sparse(content);
  store_le<uint64_t>(image.bytes, 512 + 24, 1);
  const Opened opened = open_se_sparse(image, content.size() / 512);
  check_refused(opened, "journal");
  check_refused(opened, "power the VM on");
  CHECK(opened.result.error().kind == ErrorKind::kUnsupported);
}

TEST_CASE("vmdk sesparse: header fields that no known writer writes are refused by name") {
  const auto content = vmdk_content(1 << 20, 7, 1 << 20);
  const BuiltEsx good = build_se_sparse(content);
  struct Wrong {
    size_t at;
    uint64_t value;
    const char* field;
  };
  for (const Wrong& wrong : std::initializer_list<Wrong>{{8, 0x300000001, "version"},
                                                         {16, 0, "capacity"},
                                                         {16, ~uint64_t{0}, "capacity"},
                                                         {16, 1, "capacity"},
                                                         {24, 16, "grain_size"},
                                                         {24, 0, "grain_size"},
                                                         {32, 32, "grain_table_size"},
                                                         {40, 1, "flags"},
                                                         {48, 1, "reserved"},
                                                         {72, 1, "reserved"},
                                                         {80, 0, "volatile_header_offset"},
                                                         {88, 0, "volatile_header_size"},
                                                         {128, ~uint64_t{0}, "grain_dir_offset"},
                                                         {128, 1, "grain_dir"},
                                                         {136, 0, "grain_dir_size"},
                                                         {144, 1, "grain_tables"},
                                                         {152, ~uint64_t{0}, "grain_tables_size"},
                                                         {192, 0, "grains_offset"},
                                                         {192, 13, "grains"},
                                                         {208, 1, "last known field"},
                                                         {504, 1, "last known field"},
                                                         {512, 0, "volatile magic"},
                                                         {512 + 32, 1, "last known field"}}) {
    CAPTURE(wrong.at);
    BuiltEsx image = good;
    store_le<uint64_t>(image.bytes, wrong.at, wrong.value);
    check_refused(open_se_sparse(image, content.size() / 512), wrong.field);
  }
}

TEST_CASE("vmdk sesparse: a table outside of the region of tables is refused") {
  const auto content = vmdk_content(1 << 20, 8, 1 << 20);
  BuiltEsx image = build_se_sparse(content);
  image.set_directory_entry(0, uint64_t{0x10000000} << 32 | 1);
  check_refused(open_se_sparse(image, content.size() / 512), "beyond the end of the grain tables");
  image.set_directory_entry(0, uint64_t{0x10000000} << 32 | 0xffffffff);
  check_refused(open_se_sparse(image, content.size() / 512), "beyond the end of the grain tables");
}

TEST_CASE("vmdk cowd: header fields that contradict each other or the format are refused by name") {
  const auto content = vmdk_content(8 << 20, 9, 1 << 20);
  const BuiltEsx good = build_cowd(content);
  struct Wrong {
    size_t at;
    uint32_t value;
    const char* field;
  };
  for (const Wrong& wrong : std::initializer_list<Wrong>{{4, 2, "version"},
                                                         {8, 7, "flags"},
                                                         {12, 0, "numSectors"},
                                                         {12, 1, "capacity is 1"},
                                                         {16, 0, "grainSize"},
                                                         {16, 3, "grainSize"},
                                                         {16, 1u << 31, "grainSize"},
                                                         {20, 3, "gdOffset"},
                                                         {20, ~0u, "grain directory"},
                                                         {24, 3, "numGDEntries"},
                                                         {28, ~0u, "freeSector"}}) {
    CAPTURE(wrong.at);
    BuiltEsx image = good;
    store_le<uint32_t>(image.bytes, wrong.at, wrong.value);
    check_refused(open_cowd(image, content.size() / 512), wrong.field);
  }
}

TEST_CASE("vmdk cowd: sector 1 is the header's, and no zeroed grain") {
  const auto content = vmdk_content(1 << 20, 10, 1 << 20);
  BuiltEsx image = build_cowd(content);
  image.set_entry(0, 1);
  check_refused(open_cowd(image, content.size() / 512), "where metadata lies");
}

TEST_CASE("vmdk cowd: a file that was not closed cleanly is warned of") {
  const auto content = vmdk_content(1 << 20, 11, 1 << 20);
  BuiltEsx image = build_cowd(content);
  store_le<uint32_t>(image.bytes, 1648, 1);
  const Opened opened = open_cowd(image, content.size() / 512);
  REQUIRE(opened.result);
  REQUIRE(opened.warnings.size() == 1);
  CHECK(opened.warnings[0].find("uncleanShutdown") != std::string::npos);
}

TEST_CASE("vmdk esx: a grain in any table, in the directory or beyond the end is refused at open") {
  const auto content = vmdk_content(4 << 20, 12, 4 << 20);
  BuiltEsx cowd = build_cowd(content, 128);
  REQUIRE(cowd.tables.size() == 1);
  const uint64_t table = cowd.tables[0] / 512;
  const uint64_t end = cowd.bytes.size() / 512;
  for (const uint64_t sector :
       {uint64_t{2}, cowd.directory / 512, table, table + 31, end, end - 1, uint64_t{0xffffffff}}) {
    CAPTURE(sector);
    BuiltEsx image = cowd;
    image.set_entry(7, sector);
    check_refused(open_cowd(image, content.size() / 512), "entry for sector 896");
  }
  const BuiltEsx se = build_se_sparse(content);
  for (const uint64_t number :
       {content.size() / 4096, uint64_t{1} << 40, (uint64_t{1} << 60) - 1}) {
    CAPTURE(number);
    BuiltEsx image = se;
    image.set_entry(7, se_sparse_stored(number));
    check_refused(open_se_sparse(image, content.size() / 512), "beyond the end of the file");
  }
}

TEST_CASE("vmdk cowd: a grain inside the table of other grains is refused at open") {
  const auto content = vmdk_content(6 << 20, 13, 6 << 20);
  BuiltEsx image = build_cowd(content);
  REQUIRE(image.tables.size() == 3);
  for (const uint64_t table : image.tables) {
    image.set_entry(0, table / 512 + 5);
    check_refused(open_cowd(image, content.size() / 512), "where metadata lies");
  }
}

TEST_CASE("vmdk esx: tables that overlap each other are refused") {
  const auto content = vmdk_content(17 << 20, 14, 17 << 20);
  BuiltEsx cowd = build_cowd(content, 8);
  REQUIRE(cowd.tables.size() == 2);
  for (const uint64_t distance : {0u, 31u}) {
    cowd.set_directory_entry(1, cowd.tables[0] / 512 + distance);
    check_refused(open_cowd(cowd, content.size() / 512), "overlap");
  }
  BuiltEsx se = build_se_sparse(content);
  se.set_directory_entry(1, uint64_t{0x10000000} << 32 | 1);  // as entry 0
  check_refused(open_se_sparse(se, content.size() / 512), "overlap");
}

TEST_CASE("vmdk seSparse: regions that overlap are refused, also those that are not read") {
  const auto content = vmdk_content(64 << 10, 22, 64 << 10);
  const BuiltEsx good = build_se_sparse(content);
  for (size_t region = 80; region < 192; region += 16) {
    for (const int32_t step : {-1, 1}) {
      CAPTURE(region);
      CAPTURE(step);
      BuiltEsx moved = good;
      const uint64_t sector = load_le<uint64_t>(moved.bytes, region);
      if (load_le<uint64_t>(moved.bytes, region + 8) < 2 || sector < 2) continue;
      store_le<uint64_t>(moved.bytes, region, sector + static_cast<uint64_t>(int64_t{step}));
      check_refused(open_se_sparse(moved, content.size() / 512), "overlaps");
    }
  }
}

TEST_CASE("vmdk esx: cut at every sector, the extent is refused when it is opened") {
  const auto content = vmdk_content(256 << 10, 15, 192 << 10);
  for (const EsxKind& kind : kinds()) {
    const BuiltEsx image = kind.build(content, kind.option);
    for (size_t size = 0; size < image.bytes.size(); size += 512) {
      CAPTURE(size);
      BuiltEsx cut = image;
      cut.bytes.resize(size);
      CHECK_FALSE(kind.open(cut, content.size() / 512).result);
    }
  }
}

TEST_CASE("vmdk esx: every single wrong byte of headers, directory and table is safe") {
  const auto content = vmdk_content(16 << 10, 16, 12 << 10);
  for (const EsxKind& kind : kinds()) {
    const BuiltEsx good = kind.build(content, kind.option);
    // Of the bytes that are zeros, mostly padding, a sample.
    for (size_t at = 0; at < good.tables[0] + 256; ++at) {
      if (good.bytes[at] == std::byte{0} && at % 23 != 0) continue;
      BuiltEsx image = good;
      image.bytes[at] ^= std::byte{0xff};
      const Opened opened = kind.open(image, content.size() / 512);
      if (opened.result) (void)read_steps(opened, kind.grain_bytes);
    }
  }
}

TEST_CASE("vmdk esx: an extent alone is no image: its descriptor knows the parent") {
  const auto content = vmdk_content(64 << 10, 17, 64 << 10);
  check_refused(Opened(in_memory(build_cowd(content).bytes)), "without a descriptor");
  check_refused(Opened(in_memory(build_se_sparse(content).bytes)), "without a descriptor");
}

TEST_CASE("vmdk esx: extents of all kinds stand in one descriptor") {
  const auto a = vmdk_content(1 << 20, 18, 1 << 20);
  const auto b = vmdk_content(2 << 20, 19, 1 << 20);
  const auto c = vmdk_content(1 << 20, 20, 1 << 19);
  FilesInMemory files;
  files.files["flat"] = in_memory(a);
  files.files["cowd"] = in_memory(build_cowd(b).bytes);
  files.files["se"] = in_memory(build_se_sparse(c).bytes);
  files.files["hosted"] = in_memory(build_vmdk(b, {}).bytes);
  const Opened opened(
      in_memory(vmdk_text("custom",
                          {"RW 4096 VMFSSPARSE \"cowd\"", "RW 2048 SESPARSE \"se\"",
                           "RW 2040 FLAT \"flat\" 8", "RW 3 ZERO", "RW 4096 SPARSE \"hosted\""})),
      files);
  Bytes whole = b;
  whole.insert(whole.end(), c.begin(), c.end());
  whole.insert(whole.end(), a.begin() + 8 * 512, a.end());
  whole.resize(whole.size() + 3 * 512);
  whole.insert(whole.end(), b.begin(), b.end());
  REQUIRE(opened.result);
  CHECK(read_all(opened).value_or(Bytes{}) == whole);
  CHECK(opened.reader().cluster_size() == 512);
}

}  // namespace
}  // namespace underlay::vmdk_test
