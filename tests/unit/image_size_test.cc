#include "tools/img/image_size.h"

#include <doctest/doctest.h>

namespace underlay::img {
namespace {

using Options = std::vector<std::string>;

constexpr uint64_t kGiB = 1 << 30;

DiskToStore disk_of(uint64_t size, uint64_t data = 0) {
  DiskToStore disk{.size = size};
  disk.data_bytes = [data](uint64_t) { return data; };
  return disk;
}

ErrorKind error_of(std::string_view format, const Options& options, uint64_t size = kGiB) {
  const auto measured = image_size(format, options, {.size = size});
  REQUIRE(!measured);
  return measured.error().kind;
}

TEST_CASE("a raw image takes all of its size, whatever is in it") {
  const ImageSize size = image_size("raw", {}, disk_of(kGiB, 4096)).value();
  CHECK(size.required == kGiB);
  CHECK(size.fully_allocated == kGiB);
  CHECK(!size.bitmaps);
}

TEST_CASE("a qcow2 image takes its data, and the tables of all of the disk") {
  // Header, refcount table and block, L1 table, and two L2 tables of 8192 entries.
  constexpr uint64_t kCluster = 64 << 10;
  const ImageSize size = image_size("qcow2", {}, disk_of(kGiB, 3 * kCluster)).value();
  CHECK(size.fully_allocated == kGiB + 6 * kCluster);
  CHECK(size.required == 9 * kCluster);
  CHECK(image_size("qcow2", {}, {.size = kGiB}).value().required == 6 * kCluster);
}

TEST_CASE("refcounts count the clusters of the refcounts, too") {
  // 64 bits for each cluster of 512 bytes: one block for 64 clusters.
  const Options options{"cluster_size=512,refcount_bits=64"};
  // 8 MiB: 16384 clusters, 256 L2 tables, 4 clusters of L1 table and the header. 265 blocks count
  // those, themselves, and their table of 5 clusters.
  const ImageSize size = image_size("qcow2", options, {.size = 8 << 20}).value();
  CHECK(size.fully_allocated == (16645 + 265 + 5) * 512);
}

TEST_CASE("what may be in a backing file, or is preallocated, counts as data") {
  for (const char* option : {"backing_file=b", "preallocation=full", "preallocation=falloc"}) {
    const ImageSize size = image_size("qcow2", {option}, disk_of(kGiB, 1 << 20)).value();
    CHECK(size.required == size.fully_allocated);
  }
  // A new disk has no data, on whatever file it stands.
  const ImageSize size = image_size("qcow2", {"backing_file=b"}, {.size = kGiB}).value();
  CHECK(size.required < size.fully_allocated);
}

TEST_CASE("bitmaps are counted where the image can have them") {
  DiskToStore disk = disk_of(kGiB);
  disk.bitmaps.emplace();
  CHECK(image_size("qcow2", {}, disk).value().bitmaps == 0u);
  // 16384 bits are one cluster, its table another, and the directory a third.
  disk.bitmaps->push_back({.name = "b", .granularity = 64 << 10});
  CHECK(image_size("qcow2", {}, disk).value().bitmaps == 3u * (64 << 10));
  CHECK(!image_size("qcow2", {"compat=0.10"}, disk).value().bitmaps);
  CHECK(!image_size("raw", {}, disk).value().bitmaps);
}

TEST_CASE("a disk is too large for qcow2 when its L1 table is, or its file") {
  // 32 MiB of L1 entries, each for an L2 table of 8192 clusters.
  constexpr uint64_t kLargest = (32ull << 20) / 8 * 8192 * (64 << 10);
  CHECK(image_size("qcow2", {}, {.size = kLargest}));
  CHECK(error_of("qcow2", {}, kLargest + 512) == ErrorKind::kUsage);
  CHECK(error_of("qcow2", {"cluster_size=2M"}, UINT64_MAX - 511) == ErrorKind::kUsage);
  CHECK(error_of("luks", {}, UINT64_MAX - 511) == ErrorKind::kUsage);
}

TEST_CASE("a LUKS volume has its key slots in front, and is all data") {
  // Eight areas of 504 sectors for keys of 64 bytes, behind eight sectors.
  constexpr uint64_t kHeader = (8 + 8 * 504) * 512;
  const ImageSize size = image_size("luks", {}, disk_of(kGiB, 512)).value();
  CHECK(size.required == kGiB + kHeader);
  const auto encrypted = image_size("qcow2", {"encrypt.format=luks"}, {.size = kGiB}).value();
  const auto plain = image_size("qcow2", {}, {.size = kGiB}).value();
  CHECK(encrypted.required - plain.required == 2097152);
}

TEST_CASE("options are those of the format, and have values that it can have") {
  for (const char* option :
       {"cluster_size=100", "cluster_size=4M", "refcount_bits=0", "refcount_bits=3",
        "refcount_bits=16x", "compat=1.2", "extended_l2=on,cluster_size=8k", "no=on", "",
        "lazy_refcounts=2", "preallocation=some", "encrypt.format=lux",
        "encrypt.format=luks,encrypt.cipher-alg=rot13"}) {
    CAPTURE(option);
    CHECK(error_of("qcow2", {option}) == ErrorKind::kUsage);
  }
  CHECK(error_of("raw", {"cluster_size=64k"}) == ErrorKind::kUsage);
  CHECK(error_of("vmdk", {}) == ErrorKind::kUsage);
  CHECK(error_of("nonsense", {}) == ErrorKind::kUsage);
  // The last one of a key counts; a comma in a value is written twice.
  const Options options{"cluster_size=1M,backing_file=a,,b", "cluster_size=64k"};
  CHECK(image_size("qcow2", options, {.size = kGiB}).value().required == 6 * (64 << 10));
}

TEST_CASE("what fails to count the data is the failure") {
  DiskToStore disk{.size = kGiB};
  disk.data_bytes = [](uint64_t) -> Result<uint64_t> { return fail(ErrorKind::kTruncated, "cut"); };
  CHECK(image_size("qcow2", {}, disk).error().kind == ErrorKind::kTruncated);
}

}  // namespace
}  // namespace underlay::img
