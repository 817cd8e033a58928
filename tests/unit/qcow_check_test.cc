// The check of qcow images of version 1: whole ones, and one wrong field in each.
#include "formats/qcow/qcow_check.h"

#include <functional>

#include "io/faulty_source.h"
#include "tests/support/inspected.h"
#include "tests/support/qcow_builder.h"

namespace underlay::qcow::test {
namespace {

using Kind = Finding::Kind;
using underlay::test::Checked;
using underlay::test::checked_by;
using underlay::test::finding_in;
using underlay::test::Inspection;

constexpr uint64_t kCompressed = uint64_t{1} << 63;

Checked check_in_memory(std::shared_ptr<const Source> source, uint64_t window = kQcowCheckWindow) {
  const Inspection inspection(std::move(source));
  return checked_by(inspection, [&](const FileToInspect& file, CheckReport& report) {
    return check_qcow_by(window, file, report);
  });
}
Checked check_in_memory(const QcowBuilder& builder, uint64_t window = kQcowCheckWindow) {
  return check_in_memory(std::make_shared<MemorySource>(builder.file), window);
}

// The sample image with one change has this corruption and no other.
void check_changed(const std::function<void(QcowBuilder&)>& change, std::string_view code,
                   std::string_view words) {
  CAPTURE(code);
  QcowBuilder builder = sample();
  change(builder);
  const Checked checked = check_in_memory(builder);
  CHECK_MESSAGE(checked.done, checked.done.error().to_string());
  CHECK(checked.corruptions == 1);
  const Finding found = finding_in(checked.findings, code);
  CAPTURE(found.message);
  CHECK(found.kind == Kind::kCorruption);
  CHECK(found.message.find(words) != std::string::npos);
}

}  // namespace

TEST_CASE("qcow check: whole images have no findings, and their clusters are counted") {
  const QcowBuilder builder = sample();
  const Checked checked = check_in_memory(builder);
  CHECK_MESSAGE(checked.done, checked.done.error().to_string());
  CHECK(checked.findings.empty());
  CHECK(checked.totals.total == builder.truth.size() / 512);
  CHECK(checked.totals.allocated == 6);
  CHECK(checked.totals.compressed == 3);
  CHECK(checked.totals.image_end_offset == builder.file.size());
  for (const uint8_t bits : {uint8_t{9}, uint8_t{16}}) {
    QcowBuilder other({.cluster_bits = bits, .l2_bits = 6, .size = uint64_t{100} << bits});
    for (uint64_t cluster = 0; cluster < 90; cluster += 3) {
      other.put_data(cluster, 1);
      other.put_compressed(cluster + 1, 2);
    }
    CHECK(check_in_memory(other).findings.empty());
    CHECK(check_in_memory(other, 3).findings.empty());
  }
}

TEST_CASE("qcow check: L1 entries") {
  check_changed([](QcowBuilder& image) { image.set64(image.l1_entry_offset(0), 1 << 30); },
                "l2-table-beyond-end", "L2 table of 512 bytes at 1073741824");
  check_changed([](QcowBuilder& image) { image.set64(image.l1_entry_offset(0), 4); },
                "l2-table-unaligned", "multiple of 8");
  check_changed([](QcowBuilder& image) { image.set64(image.l1_entry_offset(0), 48); }, "overlap",
                "where the header or the L1 table lies");
  check_changed(
      [](QcowBuilder& image) {
        image.set64(image.l1_entry_offset(64), image.get64(image.l1_entry_offset(0)));
      },
      "l2-tables-overlap", "of guest offsets 0 and 32768");
}

TEST_CASE("qcow check: L2 entries") {
  check_changed([](QcowBuilder& image) { image.put_entry(5, 1025); }, "l2-entry", "multiple");
  check_changed([](QcowBuilder& image) { image.put_entry(5, 1 << 30); }, "cluster-beyond-end",
                "512 bytes at 1073741824");
  check_changed([](QcowBuilder& image) { image.put_entry(5, kCompressed | 64ull << 54 | 52); },
                "overlap", "the L1 or an L2 table");
  check_changed(
      [](QcowBuilder& image) { image.put_entry(5, image.get64(image.l1_entry_offset(128))); },
      "overlap", "L2 table");
  check_changed(
      [](QcowBuilder& image) { image.put_entry(5, image.get64(image.l2_entry_offset(0))); },
      "clusters-overlap", "another cluster");
  check_changed(
      [](QcowBuilder& image) {
        image.put_entry(5, kCompressed | 64ull << 54 | (image.get64(image.l2_entry_offset(0)) + 9));
      },
      "clusters-overlap", "another cluster");
}

TEST_CASE("qcow check: in windows of any size the same is found") {
  QcowBuilder builder = sample();
  builder.put_entry(5, builder.get64(builder.l2_entry_offset(0)));
  builder.put_entry(6, builder.get64(builder.l2_entry_offset(131)));
  for (const uint64_t window : {1u, 2u, 5u, 1000u}) {
    CAPTURE(window);
    const Checked checked = check_in_memory(builder, window);
    CHECK(checked.corruptions == 2);
    CHECK(checked.totals.allocated == 8);
  }
}

TEST_CASE("qcow check: what cannot be read is a failure; a lost L1 table is the end") {
  const QcowBuilder builder = sample();
  const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file));
  source->fail_range(builder.get64(builder.l1_entry_offset(0)), 8);
  const Checked checked = check_in_memory(source);
  CHECK(finding_in(checked.findings, "l2-table-unreadable").kind == Kind::kFailure);
  CHECK(checked.totals.allocated == 4);
  source->fail_range(builder.l1_entry_offset(0), 8);
  CHECK_FALSE(check_in_memory(source).done);
  QcowBuilder cut = sample();
  cut.file.resize(56);
  CHECK(check_in_memory(cut).done.error().kind == ErrorKind::kTruncated);
}

TEST_CASE("qcow check: ends when the operator breaks it off") {
  const Inspection inspection(sample().file);
  const Checked checked = checked_by(inspection, check_qcow, /*stops=*/true);
  REQUIRE_FALSE(checked.done);
  CHECK(checked.done.error().sys_errno == EINTR);
}

}  // namespace underlay::qcow::test
