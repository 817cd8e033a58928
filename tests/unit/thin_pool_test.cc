#include "tools/thin/thin_pool.h"

#include <doctest/doctest.h>

#include "tools/thin/pool_devices.h"
#include "tools/thin/pool_plan.h"
#include "tools/thin/run_program.h"
#include "tools/thin/thin_dump.h"

namespace underlay::thin {
namespace {

Result<std::vector<MappedRun>> read_dump(const std::string& text, uint32_t id, size_t piece) {
  ThinDumpReader reader(id);
  for (size_t at = 0; at < text.size(); at += piece) TRY(reader.add(text.substr(at, piece)));
  return reader.finish();
}

constexpr const char* kDump = R"(<superblock uuid="" time="1" transaction="2" flags="0" version="2"
 data_block_size="128" nr_data_blocks="0">
  <def name="shared"><range_mapping origin_begin="20" data_begin="9" length="3" time="0"/></def>
  <device dev_id="1" mapped_blocks="1" transaction="0" creation_time="0" snap_time="1">
    <single_mapping origin_block="7" data_block="0" time="0"/>
  </device>
  <device dev_id="2" mapped_blocks="8" transaction="1" creation_time="1" snap_time="1">
    <single_mapping origin_block="0" data_block="4" time="0"/>
    <range_mapping origin_begin="1" data_begin="9" length="2" time="0"/>
    <single_mapping origin_block="19" data_block="5" time="0"/>
    <ref name="shared"/>
    <single_mapping origin_block="40" data_block="6" time="0"/>
  </device>
</superblock>
)";

std::string dump_of(const std::string& mappings) {
  return "<superblock><device dev_id=\"1\">" + mappings + "</device></superblock>";
}

// A published program's answer to what metadata_bytes() reckons; in bytes.
uint64_t thin_metadata_size(uint64_t block, uint64_t data) {
  std::string text;
  const auto done = run_program(
      {"thin_metadata_size", "-b", std::to_string(block) + "b", "-s", std::to_string(data) + "b",
       "-m", std::to_string(kExpectedVolumes), "-u", "b", "-n"},
      [&](std::string_view piece) -> Result<void> {
        text += piece;
        return {};
      });
  REQUIRE_MESSAGE(done, done.error().to_string());
  return std::stoull(text);
}

}  // namespace

TEST_CASE("the status of a pool is read field by field") {
  const auto status =
      parse_pool_status("3 111/1024 7/2048 - rw ignore_discard queue_if_no_space - 1024 ");
  REQUIRE(status);
  CHECK(status->transaction_id == 3);
  CHECK(status->used_metadata == 111);
  CHECK(status->total_metadata == 1024);
  CHECK(status->used_data == 7);
  CHECK(status->total_data == 2048);
  CHECK_FALSE(status->has_metadata_snapshot);
  CHECK(status->mode == "rw");
  CHECK_FALSE(status->needs_check);
}

TEST_CASE("a pool's troubles are seen in its status") {
  const auto full = parse_pool_status(
      "0 1/2 9/9 55 out_of_data_space no_discard_passdown queue_if_no_space - 1024");
  REQUIRE(full);
  CHECK(full->mode == "out_of_data_space");
  CHECK(full->has_metadata_snapshot);
  const auto damaged =
      parse_pool_status("0 1/2 9/9 - ro discard_passdown error_if_no_space needs_check 1024");
  REQUIRE(damaged);
  CHECK(damaged->mode == "ro");
  CHECK(damaged->needs_check);
  for (const char* const failed : {"Fail", "Error"}) {
    const auto status = parse_pool_status(failed);
    REQUIRE(status);
    CHECK(status->mode == "fail");
  }
}

TEST_CASE("a status that is not understood is an error, not a guess") {
  for (const char* const text :
       {"", "0", "0 1/2 9/9 - rw", "x 1/2 9/9 - rw ignore_discard queue_if_no_space - 1024",
        "0 1-2 9/9 - rw ignore_discard queue_if_no_space - 1024",
        "0 1/2 10/9 - rw ignore_discard queue_if_no_space - 1024",
        "0 1/2 9/9 - wr ignore_discard queue_if_no_space - 1024",
        "0 1/2 9/9 - rw ignore_discard queue_if_no_space maybe 1024"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_pool_status(text));
  }
  for (const char* const text : {"", "7", "7 x", "-1 -", "7 8 9"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_thin_status(text));
  }
}

TEST_CASE("the status of a volume") {
  const auto empty = parse_thin_status("0 -");
  REQUIRE(empty);
  CHECK(empty->mapped_sectors == 0);
  CHECK_FALSE(empty->highest_sector);
  const auto used = parse_thin_status("640 1535");
  REQUIRE(used);
  CHECK(used->mapped_sectors == 640);
  CHECK(used->highest_sector == 1535);
  CHECK(parse_thin_status("Fail")->failed);
}

TEST_CASE("a pool's table ignores discards unless they are asked for, and always zeroes blocks") {
  PoolRecord pool;
  pool.block_sectors = 256;
  pool.low_water_blocks = 10;
  CHECK(table_text({pool_target(pool, "7:0", "7:1", 4096)}) ==
        "0 4096 thin-pool 7:0 7:1 256 10 1 ignore_discard");
  pool.discards = Discards::kUnmap;
  CHECK(table_text({pool_target(pool, "7:0", "7:1", 4096)}) == "0 4096 thin-pool 7:0 7:1 256 10");
}

TEST_CASE("a volume's table names its origin") {
  VolumeRecord volume;
  volume.thin_id = 5;
  volume.sectors = 2048;
  CHECK(table_text({thin_target(volume, "254:0", "")}) == "0 2048 thin 254:0 5");
  CHECK(table_text({thin_target(volume, "254:0", "254:1")}) == "0 2048 thin 254:0 5 254:1");
}

TEST_CASE("mapped runs are merged, shared ones included, however the dump arrives") {
  for (const size_t piece : {1u, 7u, 4096u}) {
    const auto runs = read_dump(kDump, 2, piece);
    REQUIRE(runs);
    REQUIRE(runs->size() == 3);
    CHECK((*runs)[0].first_block == 0);
    CHECK((*runs)[0].blocks == 3);
    CHECK((*runs)[1].first_block == 19);
    CHECK((*runs)[1].blocks == 4);
    CHECK((*runs)[2].first_block == 40);
    CHECK((*runs)[2].blocks == 1);
  }
  CHECK(read_dump(kDump, 1, 4096)->size() == 1);
}

TEST_CASE("a dump without the volume, or cut off, is an error") {
  const auto missing = read_dump(kDump, 3, 4096);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().kind == ErrorKind::kNotFound);
  const std::string whole = kDump;
  for (size_t length = 0; length + 1 < whole.size(); length += 13) {
    CHECK_FALSE(read_dump(whole.substr(0, length), 2, 4096));
  }
}

TEST_CASE("impossible mappings in a dump are errors") {
  for (const char* const mappings :
       {"<single_mapping data_block=\"1\"/>", "<single_mapping origin_block=\"-1\"/>",
        "<single_mapping origin_block=\"18446744073709551615\"/>",
        "<range_mapping origin_begin=\"1\" length=\"0\"/>",
        "<range_mapping origin_begin=\"1\" length=\"18446744073709551615\"/>",
        "<single_mapping origin_block=\"5\"/><single_mapping origin_block=\"5\"/>",
        "<single_mapping origin_block=\"5\"/><single_mapping origin_block=\"4\"/>",
        "<ref name=\"nothing\"/>", "<unknown/>"}) {
    CAPTURE(mappings);
    CHECK_FALSE(read_dump(dump_of(mappings), 1, 4096));
  }
}

TEST_CASE("metadata is as large as thin_metadata_size says") {
  constexpr uint64_t kMiB = 1 << 20;
  for (const uint64_t block : {kMiB / 16, kMiB / 2, 1024 * kMiB}) {
    for (const uint64_t data : {2048 * kMiB, 20480 * kMiB, 1000001 * kMiB, 8 * 1048576 * kMiB}) {
      if (data <= block) continue;
      CAPTURE(block);
      CAPTURE(data);
      const uint64_t limit = 255ull * 16320 * 4096;
      CHECK(metadata_bytes(data, block) == std::min(thin_metadata_size(block, data), limit));
    }
  }
}

TEST_CASE("the low water mark is a share of the pool") {
  CHECK(low_water_blocks(1000 * 65536, 65536, 10) == 100);
  CHECK(low_water_blocks(7 * 65536, 65536, 50) == 3);
  CHECK(low_water_blocks(7 * 65536, 65536, 0) == 0);
  CHECK(low_water_blocks(UINT64_MAX, 65536, 100) == UINT64_MAX / 65536);
}

TEST_CASE("a program that fails is an error with what it said") {
  const auto ignore = [](std::string_view) { return Result<void>(); };
  const auto failed = run_program({"thin_check", "/nonexistent"}, ignore);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().message.find("thin_check failed (1): ") == 0);
  CHECK_FALSE(run_program({"no-such-program-at-all"}, ignore));
  CHECK_FALSE(run_program({"thin_metadata_size", "--help"}, [](std::string_view) {
    return Result<void>(fail(ErrorKind::kLimit, "enough"));
  }));
}

}  // namespace underlay::thin
