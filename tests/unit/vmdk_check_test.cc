// What underlay-img check finds in VMDK images: one wrong field for each rule.
#include "formats/vmdk/vmdk_check.h"

#include <doctest/doctest.h>

#include "formats/vmdk/vmdk_extent_check.h"
#include "formats/vmdk/vmdk_layout.h"
#include "io/faulty_source.h"
#include "io/store_le.h"
#include "tests/support/inspected.h"
#include "tests/support/vmdk_esx_builder.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

using underlay::test::Checked;
using underlay::test::checked;
using underlay::test::checked_by;
using underlay::test::Inspection;

constexpr uint64_t kSector = 512;

Checked check(std::shared_ptr<const Source> source, const FilesInMemory& files = {}) {
  return checked_by(Inspection(std::move(source), &files), check_vmdk);
}
Checked check(const BuiltVmdk& image) { return check(in_memory(image.bytes)); }

std::string with_cid(uint64_t sectors) {
  return vmdk_text("monolithicSparse", {"CID=1", vmdk_sparse_line(sectors)});
}

// 4 MiB in grains of 4 KiB: two tables. The second half is zeros but for its last grain.
Bytes truth() {
  Bytes content = vmdk_content(4 << 20, 1, 2 << 20);
  content.back() = std::byte{1};
  return content;
}

BuiltVmdk image(VmdkSpec spec = {}) {
  const Bytes content = truth();
  spec.descriptor = with_cid(content.size() / kSector);
  return build_vmdk(content, spec);
}

// The image as it is given to the guest by a descriptor of its own.
Checked check_esx(const BuiltEsx& extent, std::string_view create_type, std::string_view type) {
  FilesInMemory files;
  files.files["extent"] = in_memory(extent.bytes);
  return check(in_memory(esx_descriptor(create_type, type, truth().size() / kSector)), files);
}
Checked check_cowd(const BuiltEsx& extent) { return check_esx(extent, "vmfsSparse", "VMFSSPARSE"); }
Checked check_se_sparse(const BuiltEsx& extent) {
  return check_esx(extent, "seSparse", "SESPARSE");
}

uint64_t stored_grains(uint64_t grain_bytes) {
  const Bytes content = truth();
  uint64_t count = 0;
  for (uint64_t at = 0; at < content.size(); at += grain_bytes) {
    const ByteSpan grain = ByteSpan(content).subspan(at, grain_bytes);
    if (std::any_of(grain.begin(), grain.end(), [](std::byte b) { return b != std::byte{0}; })) {
      ++count;
    }
  }
  return count;
}

TEST_CASE("vmdk check: nothing is found in whole images, and their grains are counted") {
  for (const VmdkSpec& spec :
       {VmdkSpec{}, VmdkSpec{.zeroed = true}, VmdkSpec{.redundant = true},
        VmdkSpec{.compressed = true}, VmdkSpec{.compressed = true, .footer = true}}) {
    const BuiltVmdk good = image(spec);
    const Checked result = check(good);
    CHECK(result.done);
    CHECK(result.codes == "");
    CHECK(result.totals.total == 1024);
    CHECK(result.totals.allocated == stored_grains(4096));
    CHECK(result.totals.compressed == (spec.compressed ? result.totals.allocated : 0));
    CHECK(result.totals.fragmented == result.totals.compressed);
    REQUIRE(result.totals.image_end_offset);
    // Behind it lie markers.
    CHECK(*result.totals.image_end_offset >= good.bytes.size() - (spec.footer ? 2048 : 512));
    CHECK(*result.totals.image_end_offset <= good.bytes.size());
  }
}

TEST_CASE("vmdk check: nothing is found in whole extents of ESX, and in flat ones") {
  for (const Checked& result :
       {check_cowd(build_cowd(truth(), 8)), check_se_sparse(build_se_sparse(truth(), 3))}) {
    CHECK(result.done);
    CHECK(result.codes == "(cid-missing)");
    CHECK(result.totals.total == 1024);
    CHECK(result.totals.allocated == stored_grains(4096));
    CHECK_FALSE(result.totals.image_end_offset);
  }
  FilesInMemory files;
  files.files["flat"] = in_memory(Bytes(16 * kSector));
  const Checked flat =
      check(in_memory(vmdk_text("custom", {"CID=1", "RW 8 FLAT \"flat\" 8", "RW 8 FLAT \"flat\" 0",
                                           "RW 4 ZERO", "NOACCESS 4 FLAT \"gone\" 0"})),
            files);
  CHECK(flat.done);
  CHECK(flat.codes == "");
  CHECK(flat.totals.total == 0);
}

TEST_CASE("vmdk check: what the header and the descriptor say of themselves is told") {
  BuiltVmdk damaged = image();
  damaged.bytes[72] = std::byte{1};
  CHECK(check(damaged).codes == "(unclean-shutdown)");
  damaged.bytes[4] = std::byte{9};
  CHECK(check(damaged).codes == "header-unsupported (unclean-shutdown)");
  CHECK_FALSE(check(in_memory("no vmdk")).done);
  const Bytes content = truth();
  CHECK(check(build_vmdk(content, {})).codes == "lone-extent");
  const std::string text = vmdk_text("monolithicSparse", {vmdk_sparse_line(8192)});
  CHECK(check(build_vmdk(content, {.descriptor = text})).codes == "(cid-missing)");
}

TEST_CASE("vmdk check: extents that cannot be opened, or do not fit, do not hide the others") {
  FilesInMemory files;
  BuiltVmdk sparse = build_vmdk(truth(), {});
  sparse.set_entry(3, sparse.entry(1));  // absent before
  files.files["sparse"] = in_memory(sparse.bytes);
  files.files["flat"] = in_memory(Bytes(8 * kSector));
  files.files["text"] = in_memory("no extent");
  const auto text = [](const std::string& line) {
    return in_memory(vmdk_text("custom", {"CID=1", line, "RW 8192 SPARSE \"sparse\""}));
  };
  struct Case {
    const char* line;
    const char* codes;
  };
  for (const Case& one : {Case{"RW 8 FLAT \"gone\" 0", "extent-file"},
                          Case{"RW 8 FLAT \"flat\" 1", "extent-beyond-end"},
                          Case{"RW 8 SPARSE \"text\"", "header-damaged"},
                          Case{"RW 8 BLOCKS \"flat\"", "extent-type"}}) {
    CAPTURE(one.line);
    CHECK(check(text(one.line), files).codes == std::string(one.codes) + " grain-twice");
  }
  CHECK(check(text("RW 8 SPARSE \"sparse\""), files).codes == "grain-twice extent-file");
  const Checked large =
      check(in_memory(vmdk_text("custom", {"CID=1", "RW 8193 SPARSE \"sparse\""})), files);
  CHECK(large.codes == "capacity-too-small grain-twice");
  sparse.bytes[72] = std::byte{1};
  files.files["sparse"] = in_memory(sparse.bytes);
  CHECK(check(text("RW 8 ZERO"), files).codes == "(unclean-shutdown) grain-twice");
}

TEST_CASE("vmdk check: messages of another file name it") {
  FilesInMemory files;
  BuiltVmdk sparse = build_vmdk(truth(), {});
  sparse.set_entry(3, 1u << 30);
  files.files["sparse"] =
      std::make_shared<const MemorySource>(std::move(sparse.bytes), "other-file");
  const Checked result =
      check(in_memory(vmdk_text("custom", {"CID=1", "RW 8192 SPARSE \"sparse\""})), files);
  CHECK(result.codes == "grain-beyond-end");
  CHECK(result.findings.at(0).message.starts_with("other-file: grain table entry for sector 24"));
}

TEST_CASE("vmdk check: a directory that cannot be") {
  BuiltVmdk damaged = image();
  store_le<uint64_t>(damaged.bytes, 56, 1 << 20);
  CHECK(check(damaged).codes == "directory-beyond-end");
  store_le<uint64_t>(damaged.bytes, 56, 1);  // the descriptor's
  CHECK(check(damaged).codes == "directory-in-metadata");
  // The redundant one is looked at then.
  damaged = image({.redundant = true});
  store_le<uint64_t>(damaged.bytes, 56, 1 << 20);
  damaged.tables = damaged.redundant_tables;
  damaged.set_entry(3, 1u << 30);
  CHECK(check(damaged).codes == "directory-beyond-end grain-beyond-end");
  store_le<uint64_t>(damaged.bytes, 48, 1 << 21);
  CHECK(check(damaged).codes == "directory-beyond-end redundant-directory-beyond-end");
  store_le<uint64_t>(damaged.bytes, 48, 1);
  CHECK(check(damaged).codes == "directory-beyond-end redundant-directory-in-metadata");
}

TEST_CASE("vmdk check: tables that cannot be; the others are looked at") {
  const BuiltVmdk good = image();
  const auto with_table = [&](uint64_t sector) {
    BuiltVmdk damaged = good;
    store_le<uint32_t>(damaged.bytes, damaged.directory, static_cast<uint32_t>(sector));
    damaged.set_entry(1023, 1u << 30);
    const Checked result = check(damaged);
    CHECK(result.totals.allocated == 1);
    return result.codes.substr(0, result.codes.find(" leak"));
  };
  CHECK(with_table(1 << 30) == "table-beyond-end grain-beyond-end");
  CHECK(with_table(good.bytes.size() / kSector - 3) == "table-beyond-end grain-beyond-end");
  CHECK(with_table(1) == "table-in-metadata grain-beyond-end");
  CHECK(with_table(good.directory / kSector) == "table-in-metadata grain-beyond-end");
  BuiltVmdk twice = good;
  store_le<uint32_t>(twice.bytes, twice.directory + 4,
                     static_cast<uint32_t>(twice.tables[0] / kSector + 3));
  CHECK(check(twice).codes == "table-overlap leak");

  BuiltEsx sesparse = build_se_sparse(truth());
  sesparse.set_directory_entry(0, 5);
  CHECK(check_se_sparse(sesparse).codes == "(cid-missing) table-unknown");
}

TEST_CASE("vmdk check: grains that cannot be; the others are looked at") {
  const BuiltVmdk good = image();
  const auto with_grain = [&](uint64_t sector) {
    BuiltVmdk damaged = good;
    damaged.set_entry(3, static_cast<uint32_t>(sector));  // absent before
    const Checked result = check(damaged);
    CHECK(result.totals.allocated == stored_grains(4096) + 1);
    CHECK(result.findings.at(0).offset >= damaged.entry_offset(3));
    CHECK(result.findings.at(0).offset <= damaged.entry_offset(4));
    return result.codes;
  };
  CHECK(with_grain(good.bytes.size() / kSector) == "grain-beyond-end");
  CHECK(with_grain(good.bytes.size() / kSector - 7) == "grain-beyond-end");
  CHECK(with_grain(~0u) == "grain-beyond-end");
  CHECK(with_grain(2) == "grain-in-metadata");
  CHECK(with_grain(good.tables[1] / kSector) == "grain-in-metadata");
  CHECK(with_grain(good.entry(2)) == "grain-twice");
  CHECK(with_grain(good.entry(4) + 1) == "grain-overlap grain-overlap");  // of grains 4 and 5

  BuiltEsx sesparse = build_se_sparse(truth());
  sesparse.set_entry(3, uint64_t{7} << 60);
  CHECK(check_se_sparse(sesparse).codes == "(cid-missing) grain-unknown");
  sesparse.set_entry(3, sesparse.entry(2));
  CHECK(check_se_sparse(sesparse).codes == "(cid-missing) grain-twice");
  BuiltEsx cowd = build_cowd(truth(), 8);
  cowd.set_entry(3, cowd.entry(2) - 1);
  CHECK(check_cowd(cowd).codes == "(cid-missing) grain-overlap");
}

TEST_CASE("vmdk check: a grain inside a table that lies among the grains") {
  // COWD: the second table follows the first one's grains.
  const Bytes content = vmdk_content(5 << 20, 1, 5 << 20);
  BuiltEsx cowd = build_cowd(content);
  REQUIRE(cowd.tables.size() > 1);
  cowd.set_entry(5, cowd.tables[1] / kSector + 1);
  FilesInMemory files;
  files.files["extent"] = in_memory(cowd.bytes);
  const std::string text = esx_descriptor("vmfsSparse", "VMFSSPARSE", content.size() / kSector);
  CHECK(check(in_memory(text), files).codes == "(cid-missing) grain-in-metadata leak");
}

TEST_CASE("vmdk check: what lies behind the end of the descriptor's extent is never read") {
  const Bytes content = truth();
  BuiltVmdk cut = build_vmdk(content, {.descriptor = with_cid(content.size() / kSector - 8)});
  cut.set_entry(1023, 1u << 30);
  const Checked result = check(cut);
  CHECK(result.codes == "(sizes-differ) leak");
  CHECK(result.totals.total == 1023);
  CHECK(result.totals.allocated == stored_grains(4096) - 1);
}

TEST_CASE("vmdk check: a redundant directory that is another") {
  const BuiltVmdk good = image({.redundant = true});
  const auto with = [&](uint64_t offset, uint32_t value) {
    BuiltVmdk damaged = good;
    store_le<uint32_t>(damaged.bytes, offset, value);
    return check(damaged).codes;
  };
  CHECK(with(good.redundant_tables[0] + 8, 0) == "redundant-table");
  CHECK(with(good.redundant_tables[0] + 8, good.entry(3)) == "redundant-table");
  CHECK(with(good.redundant_directory, 0) == "redundant-directory");
  CHECK(with(good.redundant_directory, 1u << 30) == "redundant-directory");
  CHECK(with(48, 1u << 30) == "redundant-directory");
  BuiltVmdk empty = good;
  for (const uint64_t table : empty.redundant_tables) {
    for (uint64_t i = 0; i < 512; ++i) store_le<uint32_t>(empty.bytes, table + 4 * i, 0);
  }
  CHECK(check(empty).codes == "(redundant-empty)");
}

TEST_CASE("vmdk check: a grain in the redundant directory's tables") {
  BuiltVmdk damaged = image({.redundant = true});
  store_le<uint64_t>(damaged.bytes, 64, 1);  // overHead
  const auto sector = static_cast<uint32_t>(damaged.redundant_tables[0] / kSector);
  damaged.set_entry(3, sector);
  store_le<uint32_t>(damaged.bytes, damaged.redundant_tables[0] + 12, sector);
  CHECK(check(damaged).codes == "grain-overlap");
}

TEST_CASE("vmdk check: markers and data of compressed grains") {
  const BuiltVmdk good = image({.compressed = true, .footer = true});
  const uint64_t marker = uint64_t{good.entry(2)} * kSector;
  struct Damage {
    const char* codes;
    uint64_t offset;
    uint8_t byte;
  };
  for (const Damage& damage : {Damage{"grain-marker", 0, 8},        // another grain's LBA
                               Damage{"grain-marker leak", 11, 1},  // size
                               Damage{"grain-data", 12, 0},         // zlib's header
                               Damage{"grain-data", 100, 0x5a}}) {
    CAPTURE(damage.offset);
    BuiltVmdk damaged = good;
    damaged.bytes[marker + damage.offset] ^= std::byte{damage.byte};
    if (damage.offset == 12) damaged.bytes[marker + 12] = std::byte{0};
    const Checked result = check(damaged);
    CHECK(result.codes.starts_with(damage.codes));
    CHECK(result.findings.at(0).message.find("sector 16") != std::string::npos);
  }
  BuiltVmdk damaged = good;
  damaged.set_entry(3, damaged.entry(2));
  CHECK(check(damaged).codes == "grain-twice");
  // The second half of a grain is no marker of one.
  damaged.set_entry(3, damaged.entry(2) + 1);
  CHECK(check(damaged).codes == "grain-overlap");
}

TEST_CASE("vmdk check: a compressed grain that goes on beyond the end of the file") {
  BuiltVmdk cut = image({.compressed = true});
  const uint64_t marker = uint64_t{cut.entry(1023)} * kSector;
  cut.bytes.resize(marker + kSector);
  store_le<uint32_t>(cut.bytes, marker + 8, 1000);
  CHECK(check(cut).codes.find("directory-beyond-end") == 0);
  // With its directory in front, where the grain can be the last thing.
  BuiltVmdk moved = image({.compressed = true});
  Bytes grain(kSector);
  std::copy_n(moved.bytes.begin() + static_cast<std::ptrdiff_t>(marker), kSector, grain.begin());
  store_le<uint32_t>(grain, 8, 1000);
  moved.set_entry(1023, static_cast<uint32_t>(moved.bytes.size() / kSector));
  moved.bytes.insert(moved.bytes.end(), grain.begin(), grain.end());
  CHECK(check(moved).codes == "grain-beyond-end leak");
}

TEST_CASE("vmdk check: grains that belong to nothing are leaks, one by one") {
  BuiltVmdk leaking = image();
  leaking.set_entry(1, 0);
  leaking.set_entry(2, 0);
  Checked result = check(leaking);
  CHECK(result.codes == "leak");
  CHECK(result.leaks == 2);
  CHECK(result.findings.at(0).offset == uint64_t{image().entry(1)} * kSector);
  leaking.set_entry(6, 0);
  result = check(leaking);
  CHECK(result.codes == "leak leak");
  CHECK(result.leaks == 3);

  BuiltVmdk stream = image({.compressed = true, .footer = true});
  stream.set_entry(1, 0);
  stream.set_entry(2, 0);
  stream.set_entry(1023, 0);
  result = check(stream);
  CHECK(result.codes == "leak leak");
  CHECK(result.leaks == 3);
  // Without their markers they are one.
  const BuiltVmdk whole = image({.compressed = true, .footer = true});
  store_le<uint32_t>(stream.bytes, uint64_t{whole.entry(1)} * kSector + 8, ~0u);
  CHECK(check(stream).leaks == 2);

  BuiltEsx cowd = build_cowd(truth());
  cowd.set_entry(8, 0);
  result = check_cowd(cowd);
  CHECK(result.codes == "(cid-missing) leak");
  CHECK(result.leaks == 1);
}

TEST_CASE("vmdk check: room behind the grains of an extent is told as far as it takes space") {
  BuiltVmdk longer = image();
  const Bytes more(20 * kSector);
  longer.bytes.insert(longer.bytes.end(), more.begin(), more.end());
  Checked result = check(longer);
  CHECK(result.leaks == 2);
  BuiltVmdk padded = image({.compressed = true, .footer = true});
  padded.bytes.insert(padded.bytes.end(), more.begin(), more.end());
  CHECK(check(padded).codes == "");
}

Checked check_in_windows(const BuiltVmdk& image, uint64_t window) {
  return checked([&](CheckReport& report) -> Result<void> {
    const auto source = in_memory(image.bytes);
    const VmdkSparseFile file = TRY(read_vmdk_sparse_file(*source));
    const VmdkCheckProgress progress{.done = 0, .total = 8192};
    report.totals.image_end_offset = TRY(check_vmdk_extent({.source = *source,
                                                            .file = file,
                                                            .sectors = 8192,
                                                            .is_image = true,
                                                            .window_sectors = window},
                                                           report, progress));
    return {};
  });
}

TEST_CASE("vmdk check: a file of several windows gives the same as in one") {
  for (const bool compressed : {false, true}) {
    BuiltVmdk damaged = image({.compressed = compressed});
    CHECK(check_in_windows(damaged, 100).codes == "");
    for (uint64_t grain = 1; grain < 200; grain += grain % 9 == 1 ? 1U : 7U) {
      damaged.set_entry(grain, 0);  // also two of them in a row
    }
    damaged.set_entry(400, damaged.entry(0));
    damaged.set_entry(401, 1u << 30);
    const Checked whole = check_in_windows(damaged, 1 << 20);
    CHECK(whole.leaks == 30);
    for (const uint64_t window : {64u, 100u, 1000u, 4096u}) {
      CAPTURE(window);
      const Checked result = check_in_windows(damaged, window);
      CHECK(result.leaks == whole.leaks);
      CHECK(result.totals.allocated == whole.totals.allocated);
      CHECK(result.totals.fragmented == whole.totals.fragmented);
      CHECK(result.totals.image_end_offset == whole.totals.image_end_offset);
      CHECK(std::count_if(result.findings.begin(), result.findings.end(),
                          [](const Finding& f) { return f.code == "grain-twice"; }) == 1);
      CHECK(std::count_if(result.findings.begin(), result.findings.end(),
                          [](const Finding& f) { return f.code == "grain-beyond-end"; }) == 1);
    }
  }
}

TEST_CASE("vmdk check: what cannot be read is told as a failure, and the rest is looked at") {
  const BuiltVmdk good = image();
  const auto faulty = std::make_shared<FaultySource>(in_memory(good.bytes));
  faulty->fail_range(good.tables[0], kSector);
  const Checked result = check(faulty);
  CHECK(result.done);
  CHECK(result.codes.starts_with("unreadable! "));
  CHECK(result.totals.allocated == 1);
}

TEST_CASE("vmdk check: the operator may break it off") {
  const Inspection inspection(image().bytes);
  const auto done = checked_by(inspection, check_vmdk, /*stops=*/true).done;
  REQUIRE_FALSE(done);
  CHECK(done.error().sys_errno == EINTR);
}

TEST_CASE("vmdk check: the map of sectors") {
  VmdkSectorMap map(1000, 256);
  CHECK(map.windows() == 4);
  map.begin(1);
  CHECK(map.first() == 256);
  CHECK(map.end() == 512);
  CHECK_FALSE(map.mark(0, 256));
  CHECK_FALSE(map.mark(250, 10));  // 256 to 259
  CHECK(map.mark(259, 1));
  CHECK_FALSE(map.mark(320, 64));
  CHECK(map.mark(383, 2));
  CHECK_FALSE(map.mark(500, ~uint64_t{0} - 500));
  CHECK_FALSE(map.mark_start(260));
  CHECK(map.mark_start(260));
  CHECK_FALSE(map.mark_start(512));
  CHECK_FALSE(map.mark_start(512));
  const auto run = map.unmarked(0);
  REQUIRE(run);
  CHECK(run->first == 260);
  CHECK(run->end == 320);
  CHECK(map.unmarked(261)->first == 261);
  CHECK(map.unmarked(320)->first == 385);
  CHECK(map.unmarked(385)->end == 500);
  CHECK_FALSE(map.unmarked(500));
  map.begin(3);
  CHECK(map.end() == 1000);
  CHECK(map.unmarked(0)->end == 1000);
}

}  // namespace
}  // namespace underlay::vmdk_test
