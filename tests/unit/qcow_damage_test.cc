// Damaged and hostile qcow images: no failure becomes data, nothing is unbounded, and libqcow is
// not given what it would fail on.
#include <doctest/doctest.h>

#include "formats/qcow/qcow_layout.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/qcow_builder.h"

namespace underlay::qcow::test {
namespace {

constexpr uint64_t kCompressed = uint64_t{1} << 63;

void check_refused(const Bytes& image, ErrorKind kind, std::string_view words) {
  const Opened opened = open(image);
  REQUIRE_FALSE(opened.disk);
  CAPTURE(opened.refusal());
  CHECK(opened.disk.error().kind == kind);
  CHECK(opened.refusal().find(words) != std::string::npos);
}

// sample() with one wrong field in the header.
Bytes with8(uint64_t offset, uint8_t value) {
  QcowBuilder builder = sample();
  builder.set8(offset, value);
  return builder.file;
}
Bytes with32(uint64_t offset, uint32_t value) {
  QcowBuilder builder = sample();
  builder.set32(offset, value);
  return builder.file;
}
Bytes with64(uint64_t offset, uint64_t value) {
  QcowBuilder builder = sample();
  builder.set64(offset, value);
  return builder.file;
}

TEST_CASE("qcow: fields of the header out of their limits are refused by name") {
  check_refused(with32(0, 0x514649fa), ErrorKind::kMalformed, "magic");
  check_refused(with32(4, 2), ErrorKind::kUnsupported, "version is 2");
  for (const unsigned bits : {0u, 8u, 17u, 63u, 64u, 255u}) {
    check_refused(with8(32, static_cast<uint8_t>(bits)), ErrorKind::kMalformed, "cluster_bits");
  }
  for (const unsigned bits : {0u, 5u, 14u, 63u, 64u, 255u}) {
    check_refused(with8(33, static_cast<uint8_t>(bits)), ErrorKind::kMalformed, "l2_bits");
  }
  for (const uint64_t size : {0u, 1u}) {
    check_refused(with64(24, size), ErrorKind::kMalformed, "size is");
  }
  check_refused(with32(36, 2), ErrorKind::kMalformed, "crypt_method is 2");
}

TEST_CASE("qcow: sizes whose L1 table is absurd are refused before anything is allocated") {
  for (const uint64_t size :
       {~uint64_t{0}, uint64_t{1} << 63, (uint64_t{1} << 63) - 1, uint64_t{1} << 40}) {
    check_refused(with64(24, size), ErrorKind::kLimit, "L1 entries: the limit is 4194304");
  }
  // Within the limit, but not in the file.
  check_refused(with64(24, uint64_t{1} << 30), ErrorKind::kTruncated, "L1 table");
}

TEST_CASE("qcow: an L1 table that is absurd once it is split for libqcow is refused") {
  QcowBuilder builder = sample();
  builder.set8(32, kMaxClusterBits);
  builder.set8(33, kMaxL2Bits);
  constexpr uint64_t kEntries = 2 << 20;  // four times as many in the view
  builder.set64(24, kEntries << (kMaxClusterBits + kMaxL2Bits));
  builder.set64(40, kHeaderBytes);
  builder.file.resize(kHeaderBytes);
  builder.file.resize(kHeaderBytes + kEntries * kEntryBytes);
  check_refused(builder.file, ErrorKind::kLimit, "libqcow needs an L1 table of 67108864");
}

TEST_CASE("qcow: encrypted images are refused with the command that decrypts them") {
  check_refused(with32(36, 1), ErrorKind::kUnsupported, "qemu-img convert");
}

TEST_CASE("qcow: an L1 table that cannot be there is refused") {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{40}, uint64_t{57}, ~uint64_t{0} - 7}) {
    check_refused(with64(40, offset), ErrorKind::kMalformed, "l1_table_offset");
  }
  check_refused(with64(40, 1 << 20), ErrorKind::kTruncated, "L1 table");
}

TEST_CASE("qcow: backing file names out of their limits are refused") {
  for (const uint32_t size : {0u, 1024u, ~0u}) {
    QcowBuilder builder({.backing_name = "base"});
    builder.set32(16, size);
    check_refused(builder.file, ErrorKind::kMalformed, "backing_file_size");
  }
  QcowBuilder builder({.backing_name = "base"});
  builder.set64(8, 47);
  check_refused(builder.file, ErrorKind::kMalformed, "backing_file_offset");
  for (const uint64_t offset : {uint64_t{builder.file.size()} - 3, ~uint64_t{0}}) {
    builder.set64(8, offset);
    check_refused(builder.file, ErrorKind::kTruncated, "backing file name");
  }
  check_refused(QcowBuilder({.backing_name = "nbd:host:1"}).file, ErrorKind::kDenied, "protocol");
}

TEST_CASE("qcow: L2 tables that cannot be there are refused at the opening") {
  QcowBuilder builder = sample();
  const uint64_t entry = builder.l1_entry_offset(70);
  for (const uint64_t table :
       {uint64_t{builder.file.size()} - 511, uint64_t{1} << 62, kCompressed, ~uint64_t{0} - 7}) {
    builder.set64(entry, table);
    check_refused(builder.file, ErrorKind::kTruncated, "L1 entry 1 names an L2 table");
  }
  for (const uint64_t table : {uint64_t{8}, uint64_t{48}, uint64_t{516}}) {
    builder.set64(entry, table);
    check_refused(builder.file, ErrorKind::kMalformed, "L1 entry 1 names an L2 table");
  }
}

TEST_CASE("qcow: a wrong L2 entry fails its cluster alone") {
  struct Wrong {
    uint64_t entry;
    std::string_view words;
  };
  const QcowBuilder whole = sample();
  QcowBuilder tables = sample();
  const uint64_t own_table = tables.get64(tables.l1_entry_offset(5));
  for (const Wrong& wrong : {
           Wrong{.entry = 1, .words = "multiple of its size"},
           Wrong{.entry = 513, .words = "multiple of its size"},
           Wrong{.entry = uint64_t{1} << 40, .words = "beyond the end"},
           Wrong{.entry = whole.file.size() / 512 * 512, .words = "beyond the end"},
           Wrong{.entry = own_table, .words = "its L2 table lies"},
           // libqcow would take these for clusters that it may read without a stream.
           Wrong{.entry = kCompressed | 1024, .words = "no bytes"},
           Wrong{.entry = kCompressed | uint64_t{20} << 54 | 8, .words = "in the header"},
           Wrong{.entry = ~uint64_t{0}, .words = "beyond the end"},
           Wrong{.entry = kCompressed | uint64_t{511} << 54 | (whole.file.size() - 510),
           .words = "beyond the end"},
       }) {
    QcowBuilder builder = sample();
    builder.put_entry(5, wrong.entry);
    const Opened opened = open(builder.file);
    REQUIRE_MESSAGE(opened.disk, opened.refusal());
    CAPTURE(wrong.entry);
    const auto bytes = read(opened, 5 * 512, 512);
    REQUIRE_FALSE(bytes);
    CAPTURE(bytes.error().to_string());
    CHECK(bytes.error().message.find(wrong.words) != std::string::npos);
    CHECK(count_true_sectors(opened, builder.truth) == builder.truth.size() / 512 - 1);
  }
}

TEST_CASE("qcow: a stream that ends early is an error, not what memory held before") {
  QcowBuilder builder = sample();
  const Bytes half = builder.pattern(5, 1);
  builder.put_stream(5, deflated(ByteSpan(half).first(256)));
  Bytes cut = deflated(half);
  cut.resize(cut.size() / 2);
  builder.put_stream(6, cut);
  builder.put_stream(7, Bytes(100, std::byte{0xff}));
  const Opened opened = open(builder.file);
  REQUIRE(opened.disk);
  for (const uint64_t cluster : {5u, 6u, 7u}) {
    const auto bytes = read(opened, cluster * 512, 512);
    REQUIRE_FALSE(bytes);
    CHECK(bytes.error().kind == ErrorKind::kMalformed);
  }
  CHECK(count_true_sectors(opened, builder.truth) == builder.truth.size() / 512 - 3);
}

TEST_CASE("qcow: a file cut anywhere is refused, or its lost clusters fail") {
  const QcowBuilder builder = sample();
  for (size_t size = 0; size < builder.file.size(); size += 64) {
    const Opened opened =
        open(Bytes(builder.file.begin(), builder.file.begin() + static_cast<ptrdiff_t>(size)));
    CAPTURE(size);
    if (!opened.disk) continue;
    CHECK(count_true_sectors(opened, builder.truth) < builder.truth.size() / 512);
  }
}

TEST_CASE("qcow: a failed read of the file is that failure, wherever it happens") {
  const QcowBuilder builder = sample();
  for (int64_t nth = 0; nth < 40; ++nth) {
    const auto source =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file, "image"));
    source->fail_read(nth);
    const Opened opened = open(source);
    CAPTURE(nth);
    if (!opened.disk) {
      CHECK(opened.disk.error().kind == ErrorKind::kIo);
      continue;
    }
    CHECK(count_true_sectors(opened, builder.truth) >= builder.truth.size() / 512 - 70);
  }
}

TEST_CASE("qcow: a cluster that cannot be read is not served") {
  const QcowBuilder builder = sample();
  const auto source =
      std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file, "image"));
  const Opened opened = open(source);
  REQUIRE(opened.disk);
  REQUIRE(opened->map(70 * 512, 512, MapFor::kRead));
  source->fail_range(0, builder.file.size());
  const auto bytes = read(opened, 70 * 512, 512);
  REQUIRE_FALSE(bytes);
  CHECK(bytes.error().kind == ErrorKind::kIo);
  source->fail_range(0, 0);
  CHECK(read(opened, 70 * 512, 512).value() == builder.pattern(70, 3));
}

}  // namespace
}  // namespace underlay::qcow::test
