// VMDK: the redundant grain directory, when the primary is damaged.
#include <doctest/doctest.h>

#include "io/store_le.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

Bytes truth() { return vmdk_content(4 << 20, 1, 4 << 20); }

BuiltVmdk image() { return monolithic(truth(), VmdkSpec{.redundant = true}); }

// Reads right, by the redundant directory, and says so in one warning with `why`.
void check_rescued(const BuiltVmdk& damaged, std::string_view why) {
  const Opened opened(in_memory(damaged.bytes));
  REQUIRE(opened.result);
  CHECK(read_all(opened).value_or(Bytes{}) == truth());
  REQUIRE(opened.warnings.size() == 1);
  CAPTURE(opened.warnings[0]);
  CHECK(opened.warnings[0].find("redundant grain directory") != std::string::npos);
  CHECK(opened.warnings[0].find(why) != std::string::npos);
}

TEST_CASE("vmdk redundant: a whole primary is used, and nothing is said") {
  BuiltVmdk good = image();
  const Opened opened(in_memory(good.bytes));
  CHECK(read_all(opened).value_or(Bytes{}) == truth());
  CHECK(opened.warnings.empty());
  // Damage of the other one does not matter.
  store_le<uint32_t>(good.bytes, good.redundant_directory, ~0u);
  const Opened other(in_memory(good.bytes));
  CHECK(read_all(other).value_or(Bytes{}) == truth());
  CHECK(other.warnings.empty());
}

TEST_CASE("vmdk redundant: stands in when the primary, or a table of it, is damaged") {
  const BuiltVmdk good = image();
  const auto end = static_cast<uint32_t>(good.bytes.size() / 512);
  for (const uint32_t sector : {end - 3, ~0u, static_cast<uint32_t>(good.directory / 512), 1u}) {
    CAPTURE(sector);
    BuiltVmdk damaged = good;
    store_le<uint32_t>(damaged.bytes, damaged.directory + 4, sector);
    check_rescued(damaged, "grain directory entry 1 ");
  }
  BuiltVmdk damaged = good;
  damaged.set_entry(5, end);
  check_rescued(damaged, "sector 40 of the extent");
  damaged = good;
  store_le<uint64_t>(damaged.bytes, 56, uint64_t{1} << 40);
  check_rescued(damaged, "beyond the end of the file");
}

TEST_CASE("vmdk redundant: stands in when the primary has lost a table") {
  BuiltVmdk damaged = image();
  store_le<uint32_t>(damaged.bytes, damaged.directory + 4, 0);
  check_rescued(damaged, "names 1 tables, its redundant one 2");
}

TEST_CASE("vmdk redundant: is not used when it lacks a table that the primary has") {
  BuiltVmdk damaged = image();
  store_le<uint32_t>(damaged.bytes, damaged.redundant_directory + 4, 0);
  const Opened opened(in_memory(damaged.bytes));
  CHECK(read_all(opened).value_or(Bytes{}) == truth());
  CHECK(opened.warnings.empty());
}

TEST_CASE("vmdk redundant: empty tables, or fewer tables, do not stand in for a damaged primary") {
  const BuiltVmdk good = image();
  const auto table_of = [&](uint64_t directory, uint64_t number) {
    return uint64_t{load_le<uint32_t>(good.bytes, directory + number * 4)} * 512;
  };
  BuiltVmdk empty = good;
  for (uint64_t number = 0; number < 2; ++number) {
    for (uint64_t i = 0; i < 512; ++i) {
      store_le<uint32_t>(empty.bytes, table_of(good.redundant_directory, number) + i * 4, 0);
    }
  }
  BuiltVmdk cut = empty;  // grains of the primary lie beyond the end
  cut.bytes.resize(cut.bytes.size() - 512);
  const Opened refused(in_memory(cut.bytes));
  REQUIRE_FALSE(refused.result);
  CHECK(refused.result.error().message.find("tells less") != std::string::npos);

  BuiltVmdk lost = empty;  // the primary still tells more
  store_le<uint32_t>(lost.bytes, lost.directory + 4, 0);
  CHECK(Opened(in_memory(lost.bytes)).warnings.empty());

  BuiltVmdk fewer = good;
  store_le<uint32_t>(fewer.bytes, fewer.directory, ~0u);
  store_le<uint32_t>(fewer.bytes, fewer.redundant_directory + 4, 0);
  CHECK_FALSE(Opened(in_memory(fewer.bytes)).result);
}

TEST_CASE("vmdk redundant: an image with both damaged is refused") {
  BuiltVmdk damaged = image();
  store_le<uint32_t>(damaged.bytes, damaged.directory, ~0u);
  store_le<uint32_t>(damaged.bytes, damaged.redundant_directory + 4, ~0u);
  const Opened opened(in_memory(damaged.bytes));
  REQUIRE_FALSE(opened.result);
  CHECK(opened.result.error().message.find("neither of both") != std::string::npos);
  CHECK(opened.result.error().message.find("entry 0") != std::string::npos);
}

TEST_CASE("vmdk redundant: without its flag, or with an offset that cannot be, there is none") {
  BuiltVmdk damaged = image();
  store_le<uint32_t>(damaged.bytes, damaged.directory, ~0u);
  BuiltVmdk unflagged = damaged;
  store_le<uint32_t>(unflagged.bytes, 8, 1);
  CHECK_FALSE(Opened(in_memory(unflagged.bytes)).result);
  for (const uint64_t sector : {uint64_t{0}, ~uint64_t{0}, damaged.directory / 512}) {
    BuiltVmdk without = damaged;
    store_le<uint64_t>(without.bytes, 48, sector);
    const Opened opened(in_memory(without.bytes));
    REQUIRE_FALSE(opened.result);
    CHECK(opened.result.error().message.find("neither") == std::string::npos);
  }
}

}  // namespace
}  // namespace underlay::vmdk_test
