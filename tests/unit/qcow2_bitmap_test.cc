// Persistent dirty bitmaps of qcow2 images ("Bitmaps" in docs/interop/qcow2.txt).
#include "formats/qcow2/qcow2_bitmap.h"

#include "io/faulty_source.h"
#include "tests/support/qcow2_fixture.h"

namespace underlay {
namespace {

using Bytes = Qcow2Builder::Bytes;
using Bitmap = std::unique_ptr<const DirtyBitmap>;

constexpr uint64_t kBitsInCluster = 512 * 8;
constexpr uint64_t kAllOnes = 1;

// With its open reader, which the bitmap does not need.
Result<Bitmap> bitmap_of(Qcow2Opener& opener, std::shared_ptr<const Source> source,
                         std::string_view name = "b") {
  return TRY(opener.open(std::move(source)))->dirty_bitmap(name);
}
Result<Bitmap> bitmap_of(Qcow2Opener& opener, const Qcow2Builder& builder,
                         std::string_view name = "b") {
  return bitmap_of(opener, std::make_shared<MemorySource>(builder.file), name);
}

// One answer for each granule; '?' where it fails.
std::string granules(const DirtyBitmap& bitmap, uint64_t size, uint64_t granule) {
  std::string all;
  for (uint64_t at = 0; at < size;) {
    const auto run = bitmap.run_at(at, size - at);
    if (!run) {
      all += '?';
      at += granule;
      continue;
    }
    REQUIRE(run->length > 0);
    REQUIRE(run->length <= size - at);
    const uint64_t next = at + run->length;
    all.append(div_round_up(next, granule) - div_round_up(at, granule), run->dirty ? '1' : '0');
    at = next;
  }
  return all;
}

// A bitmap of five clusters of bits: bits, ones, zeros (two), bits; the last one is cut by the
// disk's end.
struct Sample {
  static constexpr uint64_t kGranule = 512;
  static constexpr uint64_t kBits = 4 * kBitsInCluster + 1003;
  Qcow2Builder builder{{.size = kBits * kGranule}};
  std::string truth;
  uint64_t directory = 0;

  Sample() {
    const auto bits = [this](unsigned seed) {
      Bytes bytes(512);
      for (size_t i = 0; i < bytes.size(); ++i) {
        const bool plain = i / 64 % 2 == 1;
        bytes[i] = plain ? std::byte(i / 128 % 2 == 1 ? 0xff : 0)
                         : std::byte(static_cast<uint8_t>(i * i * seed + i));
      }
      for (uint64_t bit = 0; bit < kBitsInCluster; ++bit) {
        const auto byte = std::to_integer<unsigned>(bytes[bit / 8]);
        truth += (byte >> bit % 8 & 1) != 0 ? '1' : '0';
      }
      return builder.append(bytes);
    };
    const uint64_t first = bits(37);
    truth.append(kBitsInCluster, '1').append(2 * kBitsInCluster, '0');
    const uint64_t last = bits(11);
    truth.resize(kBits);
    directory = builder.put_bitmaps(
        {{.name = "other", .table = {0, 0, 0, 0, 0}, .granularity_bits = 9, .flags = 1},
         {.name = "b", .table = {first, kAllOnes, 0, 0, last}, .granularity_bits = 9}});
  }
};

// The failure of a bitmap "b" whose directory entry, table or extension was changed by `damage`.
template <class Damage>
void check_damage(Damage&& damage, ErrorKind kind, std::string_view words) {
  Qcow2Builder builder({});
  const uint64_t bits = builder.append(Bytes(512, std::byte{0x0f}));
  const uint64_t directory =
      builder.put_bitmaps({{.name = "b", .table = {bits}, .granularity_bits = 9}});
  Qcow2Opener opener;
  REQUIRE(bitmap_of(opener, builder));
  damage(builder, directory);
  check_refused(bitmap_of(opener, builder), kind, words);
}

constexpr uint64_t kExtensionAt = 112 + 8;

}  // namespace

TEST_CASE("qcow2 bitmaps: every bit is read, and like ones are one run") {
  const Sample sample;
  Qcow2Opener opener;
  const Bitmap bitmap = bitmap_of(opener, sample.builder).value();
  REQUIRE(bitmap);
  CHECK(granules(*bitmap, sample.truth.size() * 512, 512) == sample.truth);
  const DirtyRun ones = bitmap->run_at(kBitsInCluster * 512, 1 << 30).value();
  CHECK(ones.dirty);
  CHECK(ones.length == kBitsInCluster * 512);
  const DirtyRun zeros = bitmap->run_at(2 * kBitsInCluster * 512 + 100, 1 << 30).value();
  CHECK_FALSE(zeros.dirty);
  CHECK(zeros.length == 2 * kBitsInCluster * 512 - 100);
  CHECK(bitmap->run_at(2 * kBitsInCluster * 512 + 100, 7)->length == 7);
}

TEST_CASE("qcow2 bitmaps: what lies behind the disk's end is clean") {
  const Sample sample;
  Qcow2Opener opener;
  const Bitmap bitmap = bitmap_of(opener, sample.builder).value();
  const DirtyRun behind = bitmap->run_at(sample.truth.size() * 512, 12345).value();
  CHECK_FALSE(behind.dirty);
  CHECK(behind.length == 12345);
}

TEST_CASE("qcow2 bitmaps: a granule may have 512 bytes, and it may have 2 GiB") {
  for (const uint8_t granularity_bits : {uint8_t{9}, uint8_t{31}}) {
    const uint64_t granule = uint64_t{1} << granularity_bits;
    Qcow2Builder builder({.cluster_bits = 16, .size = 3 * granule + 512});
    const uint64_t bits = builder.append(Bytes(1 << 16, std::byte{0b1010}));
    builder.put_bitmaps({{.name = "b", .table = {bits}, .granularity_bits = granularity_bits}});
    Qcow2Opener opener;
    const Bitmap bitmap = bitmap_of(opener, builder).value();
    CHECK_FALSE(bitmap->run_at(0, 4 * granule)->dirty);
    CHECK(bitmap->run_at(0, 4 * granule)->length == granule);
    const DirtyRun last = bitmap->run_at(3 * granule + 1, 511).value();
    CHECK(last.dirty);
    CHECK(last.length == 511);
  }
}

TEST_CASE("qcow2 bitmaps: extra data is passed over when the bitmap allows it") {
  Qcow2Builder builder({});
  builder.put_bitmaps({{.name = "a", .table = {0}, .extra_bytes = 13},
                       {.name = "b", .table = {kAllOnes}, .flags = 4, .extra_bytes = 24}});
  Qcow2Opener opener;
  CHECK(bitmap_of(opener, builder, "b").value()->run_at(0, 512)->dirty);
  check_refused(bitmap_of(opener, builder, "a"), ErrorKind::kUnsupported,
                "bitmap \"a\": has 13 bytes of extra data");
}

TEST_CASE("qcow2 bitmaps: one that is not there is none, one of the backing file is found") {
  Sample sample;
  Qcow2Opener opener;
  CHECK(bitmap_of(opener, sample.builder, "nightly").value() == nullptr);
  CHECK(bitmap_of(opener, Qcow2Builder({}), "b").value() == nullptr);

  std::vector<Layer> layers;
  Qcow2Builder top({});
  layers.push_back({.reader = opener.open(top.file).value(), .path = "top"});
  layers.push_back({.reader = opener.open(sample.builder.file).value(), .path = "base"});
  const Disk disk(std::move(layers), opener.caches);
  CHECK(find_dirty_bitmap(disk, "b").value()->run_at(kBitsInCluster * 512, 1)->dirty);
  check_refused(find_dirty_bitmap(disk, "nightly"), ErrorKind::kNotFound,
                "have a dirty bitmap \"nightly\"");
  check_refused(find_dirty_bitmap(disk, "other"), ErrorKind::kMalformed, "inconsistent");
}

TEST_CASE("qcow2 bitmaps: one that may be wrong is refused") {
  const auto set = [](uint64_t at, uint32_t value) {
    return [=](Qcow2Builder& builder, uint64_t directory) { builder.set32(directory + at, value); };
  };
  check_damage([](Qcow2Builder& builder, uint64_t) { builder.set64(88, 0); }, ErrorKind::kMalformed,
               "autoclear feature bit 0 is not set");
  check_damage(set(12, 1), ErrorKind::kMalformed, "bitmap \"b\": is inconsistent");
  check_damage(set(12, 8), ErrorKind::kUnsupported, "flags are 0x8");
  check_damage(set(16, 2 << 24 | 9 << 16 | 1), ErrorKind::kUnsupported, "type is 2");
  check_damage(set(16, 1 << 24 | 8 << 16 | 1), ErrorKind::kMalformed, "granularity_bits is 8");
  check_damage(set(16, 1 << 24 | 32 << 16 | 1), ErrorKind::kMalformed, "granularity_bits is 32");
  check_damage(set(16, 1 << 24 | 9 << 16), ErrorKind::kMalformed, "name_size is 0");
  check_damage(set(16, 1 << 24 | 9 << 16 | 1024), ErrorKind::kMalformed, "name_size is 1024");
  check_damage(set(16, 1 << 24 | 9 << 16 | 9), ErrorKind::kMalformed, "directory ends before");
  check_damage(set(20, 1025), ErrorKind::kLimit, "extra_data_size is 1025");
}

TEST_CASE("qcow2 bitmaps: two of one name are refused") {
  Qcow2Builder builder({});
  builder.put_bitmaps({{.name = "b", .table = {0}}, {.name = "b", .table = {kAllOnes}}});
  Qcow2Opener opener;
  check_refused(bitmap_of(opener, builder), ErrorKind::kMalformed, "two bitmaps have this name");
}

TEST_CASE("qcow2 bitmaps: an extension that cannot be one is refused") {
  const auto set32 = [](uint64_t at, uint32_t value) {
    return [=](Qcow2Builder& builder, uint64_t) { builder.set32(kExtensionAt + at, value); };
  };
  const auto set64 = [](uint64_t at, uint64_t value) {
    return [=](Qcow2Builder& builder, uint64_t) { builder.set64(kExtensionAt + at, value); };
  };
  check_damage(set32(0, 0), ErrorKind::kLimit, "nb_bitmaps is 0");
  check_damage(set32(0, 65536), ErrorKind::kLimit, "nb_bitmaps is 65536");
  check_damage(set32(0, 2), ErrorKind::kMalformed, "ends before its 1 last bitmaps");
  check_damage(set32(4, 1), ErrorKind::kMalformed, "reserved field is 1");
  check_damage(set32(static_cast<uint64_t>(-4), 16), ErrorKind::kMalformed, "has 16 bytes");
  check_damage(set64(8, uint64_t{1} << 40), ErrorKind::kLimit, "bitmap_directory_size is");
  check_damage(set64(8, 64 << 20), ErrorKind::kLimit, "bitmap_directory_size is");
  check_damage(set64(8, 32 << 20), ErrorKind::kTruncated, "bitmap directory has 33554432 bytes");
  check_damage(set64(16, 0), ErrorKind::kMalformed, "bitmap_directory_offset is 0");
  check_damage(set64(16, 513), ErrorKind::kMalformed, "bitmap_directory_offset is 513");
  check_damage(set64(16, ~uint64_t{511}), ErrorKind::kTruncated, "beyond the end of the file");
  check_damage(set64(16, 512), ErrorKind::kMalformed, "overlap");
}

TEST_CASE("qcow2 bitmaps: tables and bits that cannot be where they are said to be are refused") {
  const auto table = [](uint64_t offset) {
    return [=](Qcow2Builder& builder, uint64_t directory) { builder.set64(directory, offset); };
  };
  const auto entry = [](uint64_t value) {
    return [=](Qcow2Builder& builder, uint64_t directory) {
      builder.set64(builder.get64(directory), value);
    };
  };
  const auto entries = [](uint32_t count) {
    return [=](Qcow2Builder& builder, uint64_t directory) { builder.set32(directory + 8, count); };
  };
  check_damage(table(0), ErrorKind::kMalformed, "bitmap_table_offset is 0");
  check_damage(table(514), ErrorKind::kMalformed, "bitmap_table_offset is 514");
  check_damage(table(~uint64_t{511}), ErrorKind::kTruncated, "the bitmap table has 8 bytes");
  check_damage(table(512), ErrorKind::kMalformed, "where the L1 table lies");
  check_damage(entries(0), ErrorKind::kMalformed, "bitmap_table_size is 0 entries: must be 1");
  check_damage(entries(1 << 20), ErrorKind::kTruncated, "the bitmap table has 8388608 bytes");
  check_damage(entries((1 << 20) + 1), ErrorKind::kMalformed, "to 1048576");
  check_damage(entry(1 << 20), ErrorKind::kTruncated, "cluster of bits has 512 bytes at 1048576");
  check_damage(entry(512), ErrorKind::kMalformed, "where the L1 table lies");
  check_damage(entry(1 << 20 | 1), ErrorKind::kMalformed, "reserved bits");
  check_damage(entry(2), ErrorKind::kMalformed, "reserved bits");
  check_damage(entry(uint64_t{1} << 56), ErrorKind::kMalformed, "reserved bits");
}

TEST_CASE("qcow2 bitmaps: bits at no multiple of the cluster size are refused") {
  Qcow2Builder builder({.cluster_bits = 16});
  builder.append(Bytes(2 << 16));
  builder.put_bitmaps({{.name = "b", .table = {(2 << 16) + 512}}});
  Qcow2Opener opener;
  check_refused(bitmap_of(opener, builder), ErrorKind::kMalformed, "no multiple of 65536");
}

TEST_CASE("qcow2 bitmaps: a table too large to be checked when opened is checked when used") {
  constexpr uint64_t kEntries = Qcow2Bitmap::kMaxCheckedTableBytes / 8 + 1;
  constexpr uint64_t kSpan = kBitsInCluster * 512;
  Qcow2Builder builder({.cluster_bits = 9, .size = 1 << 20});
  std::vector<uint64_t> table(kEntries, 0);
  table[0] = uint64_t{1} << 40;
  builder.put_bitmaps({{.name = "b", .table = table, .granularity_bits = 9}});
  static_assert(kSpan > 1 << 20);
  Qcow2Opener opener;
  const Bitmap bitmap = bitmap_of(opener, builder).value();
  check_refused(bitmap->run_at(0, 512), ErrorKind::kTruncated, "cluster of bits");
}

TEST_CASE("qcow2 bitmaps: of a file cut at any sector, every answer is the truth or a failure") {
  const Sample sample;
  size_t found = 0;
  for (size_t length = 512; length < sample.builder.file.size(); length += 512) {
    CAPTURE(length);
    Bytes cut = sample.builder.file;
    cut.resize(length);
    Qcow2Opener opener;
    const auto bitmap = bitmap_of(opener, std::make_shared<MemorySource>(cut));
    if (bitmap) ++found;
    if (!bitmap) CHECK(bitmap.error().kind == ErrorKind::kTruncated);
  }
  // The directory lies last in the file.
  CHECK(found == 0);
}

TEST_CASE("qcow2 bitmaps: whichever read of the file fails, no answer is wrong") {
  const Sample sample;
  for (int64_t n = 0;; ++n) {
    REQUIRE(n < 1000);
    const auto faulty =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(sample.builder.file));
    faulty->fail_read(n);
    Qcow2Opener opener;
    const auto bitmap = bitmap_of(opener, faulty);
    if (!bitmap) {
      REQUIRE(bitmap.error().kind == ErrorKind::kIo);
      continue;
    }
    REQUIRE(*bitmap);
    const std::string all = granules(**bitmap, sample.truth.size() * 512, 512);
    REQUIRE(all.size() == sample.truth.size());
    for (size_t i = 0; i < all.size(); ++i) CHECK((all[i] == '?' || all[i] == sample.truth[i]));
    faulty->fail_read(-1);
    CHECK(granules(**bitmap, sample.truth.size() * 512, 512) == sample.truth);
    if (faulty->reads() <= static_cast<uint64_t>(n)) break;
  }
}

}  // namespace underlay
