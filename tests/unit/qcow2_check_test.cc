// The check of qcow2 images that are whole, and of those whose refcounts do not fit what uses the
// clusters.
#include "formats/qcow2/qcow2_check.h"

#include "io/faulty_source.h"
#include "tests/support/luks_builder.h"
#include "tests/support/qcow2_checked.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using Kind = Finding::Kind;
using test::check_clean;
using test::check_in_memory;
using test::check_only;
using test::Checked;
using test::finding_in;

constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint32_t kEncryption = 0x0537be77;

// Every kind of cluster.
Qcow2Builder mixed_image(const Qcow2Builder::Options& options) {
  Qcow2Builder builder(options);
  builder.put_data(0, 1);
  builder.put_data(1, 2);
  builder.put_compressed(2, 3);
  if (options.version >= 3) {
    builder.put_zeros(3, true);
    builder.put_zeros(4, false);
  }
  builder.put_data(6, 4);
  return builder;
}

Qcow2Builder data_image(uint32_t order = 4) {
  Qcow2Builder builder({.size = 4096});
  builder.put_data(0, 1);
  builder.put_data(1, 1);
  builder.put_refcounts(order);
  return builder;
}
uint64_t cluster_of(Qcow2Builder& builder, uint64_t guest_cluster) {
  return (builder.get64(builder.l2_entry_offset(guest_cluster)) & ~kCopied) /
         builder.cluster_size();
}

// The active disk's tables once more, as a snapshot's; what they name has two references then.
void put_snapshot_of_all(Qcow2Builder& builder, uint64_t guest_clusters) {
  const uint64_t l1 = builder.append(Bytes(8));
  builder.set64(builder.l1_offset(), builder.get64(builder.l1_offset()) & ~kCopied);
  for (uint64_t cluster = 0; cluster < guest_clusters; ++cluster) {
    const uint64_t at = builder.l2_entry_offset(cluster);
    builder.set64(at, builder.get64(at) & ~kCopied);
  }
  builder.set64(l1, builder.get64(builder.l1_offset()));
  builder.put_snapshots(
      {{.id = "1", .name = "one", .l1_offset = l1, .l1_entries = 1, .disk_size = 4096}});
}

}  // namespace

TEST_CASE("qcow2 check: whole images of every kind have no findings") {
  for (const uint32_t bits : {9u, 12u, 16u, 21u}) {
    for (const uint32_t version : {2u, 3u}) {
      CAPTURE(bits);
      CAPTURE(version);
      Qcow2Builder builder = mixed_image(
          {.version = version, .cluster_bits = bits, .size = (uint64_t{8} << bits) - 512});
      builder.put_refcounts();
      check_clean(check_in_memory(builder));
    }
  }
  Qcow2Builder extended = mixed_image({.cluster_bits = 14, .size = 8 << 14, .extended_l2 = true});
  extended.put_refcounts();
  check_clean(check_in_memory(extended));
  Qcow2Builder empty({.size = 0});
  empty.put_refcounts();
  check_clean(check_in_memory(empty));
}

TEST_CASE("qcow2 check: refcounts of every width are read") {
  for (uint32_t order = 0; order <= 6; ++order) {
    CAPTURE(order);
    Qcow2Builder builder = data_image(order);
    check_clean(check_in_memory(builder));
    builder.set_refcount(cluster_of(builder, 1), 0);
    const Checked low = check_in_memory(builder);
    CHECK(finding_in(low.findings, "refcount-too-low").offset == cluster_of(builder, 1) * 512);
    CHECK(low.corruptions == 2);  // QEMU counts the flag "copied", too
    CHECK(finding_in(low.findings, "cluster-copied-flag").kind == Kind::kCorruption);
    if (order == 0) continue;
    // The greatest number that the width holds.
    const uint64_t max = ~uint64_t{0} >> (64 - (1u << order));
    Qcow2Builder leaked = data_image(order);
    leaked.append(Bytes(512));
    leaked.set_refcount(leaked.clusters() - 1, max);
    check_only(check_in_memory(leaked), "leaked-cluster", Kind::kLeak, 1,
               fmt::format("refcount {}", max));
  }
}

TEST_CASE("qcow2 check: totals are counted as QEMU does") {
  Qcow2Builder builder = mixed_image({.size = 5000});
  builder.put_refcounts();
  const Checked checked = check_in_memory(builder);
  check_clean(checked);
  CHECK(checked.totals.total == 9);  // of whole sectors
  CHECK(checked.totals.allocated == 5);
  CHECK(checked.totals.compressed == 1);
  // The compressed one, and the two that the L2 table has behind what is not theirs.
  CHECK(checked.totals.fragmented == 2);
  CHECK(checked.totals.image_end_offset == builder.file.size());
}

TEST_CASE("qcow2 check: leaked clusters are counted one by one, and told as a run") {
  Qcow2Builder builder = data_image();
  const uint64_t first = builder.clusters();
  builder.append(Bytes(3 * 512));
  for (uint64_t i = 0; i < 3; ++i) builder.set_refcount(first + i, 1);
  const Checked checked = check_in_memory(builder);
  check_only(checked, "leaked-cluster", Kind::kLeak, 3,
             fmt::format("each of the clusters {} to {} has refcount 1", first, first + 2));
  CHECK(checked.findings.size() == 1);
  CHECK(checked.findings[0].offset == first * 512);
  CHECK(checked.totals.image_end_offset == builder.file.size());
}

TEST_CASE("qcow2 check: clusters behind the last used one are no part of the image") {
  Qcow2Builder builder = data_image();
  const uint64_t end = builder.file.size();
  builder.append(Bytes(8 * 512));
  const Checked checked = check_in_memory(builder);
  check_clean(checked);
  CHECK(checked.totals.image_end_offset == end);
}

TEST_CASE("qcow2 check: two that use one cluster, whatever its refcount") {
  Qcow2Builder builder = data_image();
  // The second data cluster lies where the L1 table lies.
  builder.set_refcount(cluster_of(builder, 1), 0);
  builder.put_entry(1, builder.l1_offset() | kCopied);
  check_only(check_in_memory(builder), "overlap", Kind::kCorruption, 1,
             "has refcount 1, but is used 2 times (L1 table, data)");
  builder.set_refcount(1, 2);
  builder.put_entry(1, builder.l1_offset());
  check_only(check_in_memory(builder), "counted-overlap", Kind::kCorruption, 1,
             "exclude each other");
  builder.set_refcount(1, 3);
  const Checked leaked = check_in_memory(builder);
  CHECK(leaked.corruptions == 1);
  CHECK(leaked.leaks == 1);
}

TEST_CASE("qcow2 check: each use that a narrow refcount cannot count is an error") {
  Qcow2Builder builder = data_image(0);
  const uint64_t host = builder.get64(builder.l2_entry_offset(0));
  builder.set_refcount(cluster_of(builder, 1), 0);
  builder.put_entry(1, host);
  builder.put_entry(2, host);
  check_only(check_in_memory(builder), "refcount-overflow", Kind::kCorruption, 2,
             "used 3 times (data), but refcounts of this image count up to 1");
}

TEST_CASE("qcow2 check: snapshots share tables and data") {
  Qcow2Builder builder({.size = 4096});
  builder.put_data(0, 1);
  builder.put_data(1, 1);
  const uint64_t l2 = builder.get64(builder.l1_offset()) & ~kCopied;
  put_snapshot_of_all(builder, 2);
  builder.put_refcounts();
  builder.set_refcount(l2 / 512, 2);
  for (const uint64_t guest : {0u, 1u}) builder.set_refcount(cluster_of(builder, guest), 2);
  const Checked checked = check_in_memory(builder);
  check_clean(checked);
  CHECK(checked.totals.allocated == 2);  // of the active disk

  builder.set_refcount(cluster_of(builder, 1), 3);
  check_only(check_in_memory(builder), "leaked-cluster", Kind::kLeak, 1, "used 2 times (data)");
}

TEST_CASE("qcow2 check: bitmaps use their directory, tables and bits") {
  Qcow2Builder builder({.size = 4096});
  builder.put_data(0, 1);
  const uint64_t bits = builder.append(Bytes(512));
  builder.put_bitmaps({{.name = "one", .table = {bits}}, {.name = "two", .table = {1}}});
  builder.put_refcounts();
  check_clean(check_in_memory(builder));
  // Of an image that a program changed which knows no bitmaps they are no part any more.
  builder.set64(88, 0);
  check_only(check_in_memory(builder), "leaked-cluster", Kind::kLeak, 4, "used 0 times");
}

TEST_CASE("qcow2 check: a LUKS header uses its clusters, and needs no key") {
  Qcow2Builder builder({.size = 4096});
  builder.put_data(0, 1);
  builder.set32(32, 2);
  Bytes pointer(16);
  store_be(MutableByteSpan(pointer), 0, builder.append(Bytes(1300)));
  store_be(MutableByteSpan(pointer), 8, uint64_t{1300});
  builder.add_extension(kEncryption, as_text(pointer));
  builder.append({});
  builder.put_refcounts();
  check_clean(check_in_memory(builder));
}

TEST_CASE("qcow2 check: in windows of any size the same is found") {
  Qcow2Builder builder = mixed_image({.size = 5000});
  const uint64_t bits = builder.append(Bytes(512));
  builder.put_bitmaps({{.name = "one", .table = {bits}}});
  builder.put_refcounts();
  builder.set_refcount(cluster_of(builder, 1), 0);
  builder.set_refcount(2, 2);
  const uint64_t far = builder.clusters() + 100;
  builder.file.resize((far + 1) * 512);
  builder.set_refcount(far, 1);
  const Checked whole = check_in_memory(builder);
  CHECK(whole.corruptions > 0);
  CHECK(whole.leaks > 0);
  for (const uint64_t window : {1u, 2u, 3u, 7u, 50u, 1000u}) {
    CAPTURE(window);
    const Checked parts = check_in_memory(builder, window);
    CHECK(parts.done);
    CHECK(parts.corruptions == whole.corruptions);
    CHECK(parts.leaks == whole.leaks);
    CHECK(parts.failures == whole.failures);
    CHECK(parts.totals.allocated == whole.totals.allocated);
    CHECK(parts.totals.fragmented == whole.totals.fragmented);
    CHECK(parts.totals.image_end_offset == whole.totals.image_end_offset);
    CHECK(test::codes_of(parts.findings).size() >= test::codes_of(whole.findings).size());
  }
}

TEST_CASE("qcow2 check: windows in which nothing lies are passed over") {
  Qcow2Builder builder = data_image();
  // At 64 clusters a window, to look at each would take a million passes.
  class SparseSource final : public Source {
   public:
    explicit SparseSource(Bytes bytes) : memory_(std::move(bytes)) {}
    const std::string& name() const override { return memory_.name(); }
    uint64_t size() const override { return uint64_t{64} << 40; }
    Result<void> read_at(uint64_t offset, MutableByteSpan out) const override {
      for (size_t i = 0; i < out.size(); ++i) out[i] = std::byte{0};
      if (offset >= memory_.size()) return {};
      const uint64_t present = std::min<uint64_t>(out.size(), memory_.size() - offset);
      return memory_.read_at(offset, out.first(static_cast<size_t>(present)));
    }

   private:
    MemorySource memory_;
  };
  check_clean(check_in_memory(std::make_shared<SparseSource>(builder.file), 64));
}

TEST_CASE("qcow2 check: what cannot be read is a failure, and the rest is looked at") {
  Qcow2Builder builder = mixed_image({.size = 64 << 10});
  builder.put_data(64, 1);  // in another L2 table
  const uint64_t bits = builder.append(Bytes(512));
  const uint64_t directory = builder.put_bitmaps({{.name = "one", .table = {bits}}});
  const uint64_t refcounts = builder.put_refcounts();
  struct Case {
    uint64_t offset;
    std::string_view code;
  };
  const Case cases[] = {{builder.l1_offset(), "l1-table-unreadable"},
                        {builder.get64(builder.l1_offset()) & ~kCopied, "l2-table-unreadable"},
                        {refcounts, "refcount-table-unreadable"},
                        {builder.get64(refcounts), "refcounts-unreadable"},
                        {directory, "bitmap-directory-damaged"},
                        {builder.get64(directory), "bitmap-unreadable"}};
  for (const Case& bad : cases) {
    CAPTURE(bad.code);
    const auto source =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file));
    source->fail_range(bad.offset, 8);
    const Checked checked = check_in_memory(source);
    CHECK(checked.done);
    CHECK(finding_in(checked.findings, bad.code).kind == Kind::kFailure);
    CHECK(checked.failures > 0);
  }
}

TEST_CASE("qcow2 check: ends when the operator breaks it off") {
  const Qcow2Builder builder = data_image();
  const test::Inspection inspection(builder.file);
  const Checked checked = test::checked_by(inspection, check_qcow2, /*stops=*/true);
  REQUIRE_FALSE(checked.done);
  CHECK(checked.done.error().sys_errno == EINTR);
}

TEST_CASE("qcow2 check: an image whose header cannot be understood is not looked at") {
  Qcow2Builder features = data_image();
  features.set64(72, 1 << 20);
  CHECK(check_in_memory(features).done.error().kind == ErrorKind::kUnsupported);
  Qcow2Builder bits = data_image();
  bits.set32(20, 40);
  CHECK(check_in_memory(bits).done.error().kind == ErrorKind::kMalformed);
}

}  // namespace underlay
