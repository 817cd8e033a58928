// One wrong field in a qcow2 image, and what its check says of it.
#include <functional>

#include "tests/support/qcow2_checked.h"
#include "tests/support/qcow2_fixture.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using Kind = Finding::Kind;
using test::check_in_memory;
using test::check_only;
using test::Checked;
using test::finding_in;

constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint32_t kDataFile = 0x44415441;
constexpr uint32_t kBitmaps = 0x23852875;

// Two data clusters and a compressed one; nothing is wrong yet.
Qcow2Builder whole_image(Qcow2Builder::Options options = {}) {
  if (options.size == Qcow2Builder::Options().size)
    options.size = uint64_t{8} << options.cluster_bits;
  Qcow2Builder builder(options);
  builder.put_data(0, 1);
  builder.put_data(1, 2);
  if (!options.external_data) builder.put_compressed(2, 3);
  return builder;
}

// The image with `change` made before the refcounts are.
Checked check_changed(Qcow2Builder builder, const std::function<void(Qcow2Builder&)>& change) {
  change(builder);
  builder.put_refcounts();
  return check_in_memory(builder);
}

// Of the guest cluster. To be read before it is changed.
uint64_t entry_of(Qcow2Builder& builder, uint64_t cluster) {
  return builder.get64(builder.l2_entry_offset(cluster));
}
void change_entry(Qcow2Builder& builder, uint64_t cluster, uint64_t flip) {
  const uint64_t at = builder.l2_entry_offset(cluster);
  builder.set64(at, builder.get64(at) ^ flip);
}

// It is among what is found: clusters that are lost to it may be leaked besides, say.
void check_found(const Checked& checked, std::string_view code, std::string_view words = "") {
  CHECK_MESSAGE(checked.done, checked.done.error().to_string());
  const Finding found = finding_in(checked.findings, code);
  CAPTURE(found.message);
  CHECK(found.kind == Kind::kCorruption);
  CHECK(found.offset);
  CHECK(found.message.find(words) != std::string::npos);
}

}  // namespace

TEST_CASE("qcow2 check: L1 entries") {
  check_only(check_changed(whole_image(),
                           [](Qcow2Builder& image) {
                             image.set64(image.l1_offset(),
                                         image.get64(image.l1_offset()) | 1ull << 60);
                           }),
             "l1-entry-reserved-bits", Kind::kCorruption, 1, "reserved");
  check_only(
      check_changed(whole_image({.size = 128 << 10}),
                    [](Qcow2Builder& image) { image.set64(image.l1_offset() + 8, kCopied); }),
      "l1-entry-without-table", Kind::kCorruption, 1, "names no L2 table");
  const Checked unaligned =
      check_changed(whole_image({.cluster_bits = 10}), [](Qcow2Builder& image) {
        image.set64(image.l1_offset(), image.get64(image.l1_offset()) + 512);
      });
  check_found(unaligned, "l2-table-unaligned", "no multiple of 1024");
  const Checked beyond = check_changed(whole_image(), [](Qcow2Builder& image) {
    image.set64(image.l1_offset(), kCopied | 1 << 30);
  });
  check_found(beyond, "l2-table-beyond-end", "L2 table of 512 bytes at 1073741824");
  CHECK(beyond.totals.allocated == 0);
}

TEST_CASE("qcow2 check: tables that the end of the file cuts") {
  // The L1 table is the last thing in it.
  Qcow2Builder builder({.size = 4 << 20});
  builder.file.resize(builder.l1_offset() + 100);
  check_found(check_in_memory(builder), "l1-table-beyond-end", "L1 table of 1024 bytes");
  Qcow2Builder l2({.size = 4096});
  (void)l2.l2_entry_offset(0);
  l2.file.resize(l2.file.size() - 8);
  check_found(check_in_memory(l2), "l2-table-beyond-end");
}

TEST_CASE("qcow2 check: standard L2 entries") {
  check_only(
      check_changed(whole_image(), [](Qcow2Builder& image) { change_entry(image, 1, 1ull << 57); }),
      "l2-entry-reserved-bits", Kind::kCorruption, 1, "guest offset 512");
  check_only(check_changed(whole_image({.version = 2}),
                           [](Qcow2Builder& image) { image.put_entry(5, 1); }),
             "l2-entry-zero-flag", Kind::kCorruption, 1, "version 2");
  check_only(check_changed(whole_image({.cluster_bits = 14, .extended_l2 = true}),
                           [](Qcow2Builder& image) { change_entry(image, 1, 1); }),
             "l2-entry-zero-flag", Kind::kCorruption, 1, "extended");
  const Checked unaligned = check_changed(whole_image({.cluster_bits = 10}),
                                          [](Qcow2Builder& image) { change_entry(image, 1, 512); });
  check_found(unaligned, "cluster-unaligned", "at a multiple of 1024");
  const Checked beyond = check_changed(
      whole_image(), [](Qcow2Builder& image) { image.put_entry(5, kCopied | 1 << 30); });
  check_found(beyond, "cluster-beyond-end", "1073741824");
}

TEST_CASE("qcow2 check: a cut last cluster, where the disk shows what is lost") {
  for (const uint64_t disk_size : {uint64_t{1024}, uint64_t{1025}}) {
    CAPTURE(disk_size);
    Qcow2Builder builder({.cluster_bits = 12, .size = disk_size});
    (void)builder.l2_entry_offset(0);
    builder.put_refcounts();
    const uint64_t host = builder.append(Bytes(1024));
    builder.put_entry(0, host | kCopied);
    builder.set_refcount(host >> 12, 1);
    const Checked checked = check_in_memory(builder);
    if (disk_size == 1024) {
      test::check_clean(checked);
    } else {
      check_only(checked, "cluster-cut", Kind::kCorruption, 1, "cut off");
    }
  }
}

TEST_CASE("qcow2 check: compressed L2 entries") {
  check_only(
      check_changed(whole_image(), [](Qcow2Builder& image) { change_entry(image, 2, kCopied); }),
      "compressed-cluster-copied-flag", Kind::kCorruption, 1, "must not be set");
  const Checked beyond = check_changed(
      whole_image(), [](Qcow2Builder& image) { image.put_entry(5, kCompressed | 1 << 30); });
  check_found(beyond, "compressed-cluster-beyond-end");
  Qcow2Builder external = whole_image({.external_data = true});
  external.add_extension(kDataFile, "disk.data");
  external.put_entry(5, kCompressed | 1024);
  external.put_refcounts();
  const Checked in_data_file = test::check_beside(FilesInMemory(), external);
  check_only(in_data_file, "compressed-cluster-in-data-file", Kind::kCorruption, 1, "data file");
}

TEST_CASE("qcow2 check: subclusters") {
  const auto check = [](uint64_t entry_flip, uint64_t bitmap, uint64_t cluster) {
    return check_changed(whole_image({.cluster_bits = 14, .extended_l2 = true}),
                         [&](Qcow2Builder& image) {
                           image.put_entry(cluster, entry_of(image, cluster) ^ entry_flip, bitmap);
                         });
  };
  check_only(check(0, 0x1'0000'0001, 1), "subclusters-contradict", Kind::kCorruption, 1, "both");
  check_only(check(0, 0x10, 5), "subclusters-without-cluster", Kind::kCorruption, 1, "0x10");
  const Checked compressed = check(0, 1, 2);
  check_found(compressed, "compressed-cluster-with-subclusters", "0x1");
  CHECK(compressed.totals.compressed == 0);
}

TEST_CASE("qcow2 check: flags \"copied\" that do not fit the refcounts") {
  check_only(
      check_changed(whole_image(), [](Qcow2Builder& image) { change_entry(image, 1, kCopied); }),
      "cluster-copied-flag", Kind::kCorruption, 1, "is 0, but its cluster");
  check_only(check_changed(whole_image(),
                           [](Qcow2Builder& image) {
                             image.set64(image.l1_offset(),
                                         image.get64(image.l1_offset()) ^ kCopied);
                           }),
             "l2-table-copied-flag", Kind::kCorruption, 1, "refcount 1");
}

TEST_CASE("qcow2 check: data files") {
  const auto check = [](uint64_t data_bytes, const std::function<void(Qcow2Builder&)>& change) {
    Qcow2Builder builder = whole_image({.external_data = true});
    builder.add_extension(kDataFile, "disk.data");
    change(builder);
    builder.put_refcounts();
    FilesInMemory files;
    files.files["disk.data"] = std::make_shared<MemorySource>(Bytes(data_bytes));
    return test::check_beside(files, builder);
  };
  const auto nothing = [](Qcow2Builder&) {};
  test::check_clean(check(1024, nothing));
  check_only(check(1023, nothing), "data-file-beyond-end", Kind::kCorruption, 1, "1023 bytes");
  check_only(check(1024, [](Qcow2Builder& image) { change_entry(image, 1, 1024); }),
             "data-file-offset", Kind::kCorruption, 1, "its offset in the data file, 1536");
  const Checked snapshots = check(1024, [](Qcow2Builder& image) {
    image.put_snapshots({{.id = "1", .name = "x", .disk_size = 4096}});
  });
  check_found(snapshots, "snapshots-with-data-file");
}

TEST_CASE("qcow2 check: refcount table and blocks") {
  struct Change {
    uint64_t value;
    std::string_view code;
  };
  const Change changes[] = {{1, "refcount-table-reserved-bits"},
                            {1 << 30, "refcount-block-beyond-end"},
                            {0, "refcount-too-low"}};
  for (const Change& change : changes) {
    CAPTURE(change.code);
    Qcow2Builder builder = whole_image();
    const uint64_t table = builder.put_refcounts();
    builder.set64(table, change.value == 1 ? builder.get64(table) | 1 : change.value);
    check_found(check_in_memory(builder), change.code);
  }
  Qcow2Builder unaligned = whole_image({.cluster_bits = 10});
  const uint64_t table = unaligned.put_refcounts();
  unaligned.set64(table, unaligned.get64(table) + 512);
  const Checked checked = check_in_memory(unaligned);
  check_found(checked, "refcount-block-unaligned");
  CHECK(finding_in(checked.findings, "refcounts-unreadable").kind == Kind::kFailure);
  CHECK(checked.failures == unaligned.clusters());

  // The refcount of what a table has behind the file's end cannot be read either.
  Qcow2Builder cut({.cluster_bits = 10, .size = (16 << 20) + 512});
  const uint64_t refcounts = cut.put_refcounts();
  cut.set64(refcounts, cut.get64(refcounts) + 512);
  cut.set64(40, cut.append(Bytes(1024)));  // l1_table_offset; the table has 1032 bytes
  const Checked tail = check_in_memory(cut);
  check_found(tail, "l1-table-beyond-end");
  CHECK(tail.failures == cut.clusters() + 1);

  Qcow2Builder shared = whole_image();
  const uint64_t at = shared.put_refcounts();
  shared.set64(at + 8, shared.get64(at));
  const Checked twice = check_in_memory(shared);
  check_found(twice, "refcount-block-shared", "used 2 times");
  CHECK(twice.corruptions == 2);  // its refcount is 1
}

TEST_CASE("qcow2 check: header fields about refcounts that cannot be") {
  Qcow2Builder order = whole_image();
  order.put_refcounts();
  order.set32(96, 7);
  check_only(check_in_memory(order), "refcount-table", Kind::kCorruption, 1, "refcount_order is 7");
  Qcow2Builder place = whole_image();
  place.put_refcounts();
  place.set64(48, place.get64(48) + 8);
  check_only(check_in_memory(place), "refcount-table", Kind::kCorruption, 1, "multiple");
  Qcow2Builder size = whole_image();
  size.put_refcounts();
  size.set32(56, 1 << 20);
  check_only(check_in_memory(size), "refcount-table", Kind::kCorruption, 1, "the limit is");
}

TEST_CASE("qcow2 check: snapshots that are damaged") {
  const auto check = [](const Qcow2Builder::Snapshot& snapshot) {
    return check_changed(whole_image(),
                         [&](Qcow2Builder& image) { image.put_snapshots({snapshot}); });
  };
  const Qcow2Builder::Snapshot good{.id = "1", .name = "x", .disk_size = 0};
  test::check_clean(check(good));
  Qcow2Builder::Snapshot wrong = good;
  wrong.l1_offset = 100;
  check_only(check(wrong), "snapshot-l1-table", Kind::kCorruption, 1, "multiple of 512");
  wrong = good;
  wrong.l1_entries = 5 << 20;
  check_only(check(wrong), "snapshot-l1-table", Kind::kCorruption, 1, "the limit is");
  wrong = good;
  wrong.disk_size = 1 << 20;
  check_only(check(wrong), "snapshot-l1-unfit", Kind::kCorruption, 1, "bytes of disk need");
  wrong = good;
  wrong.extra_bytes = 8;
  check_only(check(wrong), "snapshot-without-disk-size", Kind::kCorruption, 1, "needs 16");
  wrong = good;
  wrong.extra_bytes = 1 << 12;
  check_found(check(wrong), "snapshot-table-damaged", "extra data");
}

TEST_CASE("qcow2 check: snapshots whose tables together have more bytes than the file") {
  Qcow2Builder builder = whole_image();
  const uint64_t l1 = builder.append(Bytes(4096));
  std::vector<Qcow2Builder::Snapshot> snapshots;
  for (uint32_t i = 0; i < 64; ++i) {
    snapshots.push_back({.id = "1", .name = "x", .l1_offset = l1, .l1_entries = 448 + i});
  }
  builder.put_snapshots(snapshots);
  builder.put_refcounts();
  const Checked checked = check_in_memory(builder);
  CHECK(finding_in(checked.findings, "tables-exceed-file").kind == Kind::kFailure);
  CHECK(finding_in(checked.findings, "overlap").kind == Kind::kCorruption);
}

TEST_CASE("qcow2 check: bitmaps that are damaged") {
  using Bitmap = Qcow2Builder::Bitmap;
  const auto check = [](const std::vector<Bitmap>& bitmaps) {
    return check_changed(whole_image(), [&](Qcow2Builder& image) { image.put_bitmaps(bitmaps); });
  };
  const Bitmap good{.name = "one", .table = {0}};
  test::check_clean(check({good}));
  check_only(check({good, good}), "bitmap-name-twice", Kind::kCorruption, 1, "\"one\"");
  check_only(check({{.name = "one", .table = {0}, .flags = 1}}), "bitmap-in-use", Kind::kNotice, 0,
             "inconsistent");
  check_only(check({{.name = "one", .table = {0}, .granularity_bits = 40}}), "bitmap-unusable",
             Kind::kCorruption, 1, "granularity_bits is 40");
  check_only(check({{.name = "one", .table = {2}}}), "bitmap-table-entry", Kind::kCorruption, 1,
             "reserved");
  check_found(check({{.name = "one", .table = {1 << 30}}}), "bitmap-beyond-end");
  const Checked shorter = check_changed(whole_image(), [&](Qcow2Builder& image) {
    const uint64_t directory = image.put_bitmaps({good});
    image.set32(directory + 16, 0x01100000);  // name_size
  });
  check_found(shorter, "bitmap-directory-damaged", "name_size is 0");
  const Checked longer = check_changed(whole_image(), [&](Qcow2Builder& image) {
    image.put_bitmaps({good});
    image.set64(112 + 8 + 8, image.get64(112 + 8 + 8) + 8);  // bitmap_directory_size
    image.append(Bytes(512));
  });
  check_found(longer, "bitmap-directory-damaged", "8 bytes before");
  const Checked extension = check_changed(whole_image(), [&](Qcow2Builder& image) {
    image.add_extension(kBitmaps, "short");
    image.set64(88, 1);
  });
  CHECK(finding_in(extension.findings, "bitmaps-extension").kind == Kind::kCorruption);
}

TEST_CASE("qcow2 check: a LUKS header that cannot be where it is said to be") {
  const Checked lost =
      check_changed(whole_image(), [](Qcow2Builder& image) { image.set32(32, 2); });
  CHECK(finding_in(lost.findings, "luks-header").kind == Kind::kCorruption);
}

TEST_CASE("qcow2 check: bytes at random end in findings, not in a crash") {
  Qcow2Builder builder = whole_image();
  builder.put_snapshots({{.id = "1", .name = "x"}});
  const uint64_t bits = builder.append(Bytes(512));
  builder.put_bitmaps({{.name = "one", .table = {bits}}});
  builder.put_refcounts();
  uint64_t state = 1;
  const auto next = [&state] { return state = state * 6364136223846793005 + 1442695040888963407; };
  for (int round = 0; round < 3000; ++round) {
    Qcow2Builder damaged = builder;
    for (int i = 0; i < 3; ++i) {
      damaged.file[(next() >> 33) % damaged.file.size()] =
          std::byte(static_cast<uint8_t>(next() >> 40));
    }
    if (round % 7 == 0) damaged.file.resize(512 + (next() >> 33) % damaged.file.size());
    (void)check_in_memory(damaged, 1 + (next() >> 33) % 16);
  }
}

}  // namespace underlay
