// qcow images of version 1: what lies where, and that libqcow's bytes are the right ones.
#include "formats/qcow/qcow.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "formats/qcow/qcow_layout.h"
#include "tests/support/qcow_builder.h"

namespace underlay::qcow::test {
namespace {

using Kind = Extent::Kind;

TEST_CASE("qcow: plain and compressed clusters are the disk's, absent ones are zeros") {
  const QcowBuilder builder = sample();
  const Opened opened = open(builder.file);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  CHECK(opened->unpadded_size() == builder.truth.size());
  const auto whole = read(opened, 0, builder.truth.size());
  REQUIRE_MESSAGE(whole, whole.error().to_string());
  CHECK(*whole == builder.truth);
  CHECK(opened.disk->warnings.empty());
}

TEST_CASE("qcow: stored clusters are copied ones, known under kReadNow once the tables are") {
  const QcowBuilder builder = sample();
  const Opened opened = open(builder.file);
  REQUIRE(opened.disk);
  REQUIRE(opened->map(70 * 512 + 100, 4096, MapFor::kRead));
  const auto plain = opened->map(70 * 512 + 100, 4096, MapFor::kReadNow);
  REQUIRE(plain);
  CHECK(plain->kind == Kind::kCopied);
  CHECK(plain->cluster_start == 70 * 512);
  CHECK(plain->cluster_length == 512);
  CHECK(plain->length == 412);
}

TEST_CASE("qcow: absent clusters and absent tables are long runs") {
  const QcowBuilder builder = sample();
  const Opened opened = open(builder.file);
  REQUIRE(opened.disk);
  const Reader& reader = *opened->layers().front().reader;
  // From cluster 2 to the end of the first table, 64 clusters; then clusters 64 to 69.
  CHECK(reader.map(2 * 512, 90 << 10, MapFor::kRead)->length == 62 * 512);
  CHECK(reader.map(64 * 512, 60 << 10, MapFor::kRead)->length == 6 * 512);

  QcowBuilder sparse({.size = 1 << 20});
  sparse.put_data(2047, 1);
  const Opened empty = open(sparse.file);
  REQUIRE(empty.disk);
  CHECK(empty->layers().front().reader->map(512, 1 << 20, MapFor::kRead)->length ==
        1984 * 512 - 512);
}

TEST_CASE("qcow: tables that lie at no multiple of their size are found") {
  // As QEMU makes images with backing file: L2 tables of 32 KiB, clusters of 512 bytes.
  QcowBuilder builder({.l2_bits = 12, .size = 5 << 20});
  for (const uint64_t cluster : {0u, 1u, 4095u, 4096u, 8000u, 10239u}) {
    builder.put_data(cluster, static_cast<uint8_t>(cluster));
  }
  CHECK(builder.get64(builder.l1_entry_offset(0)) % (32 << 10) != 0);
  const Opened opened = open(builder.file);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  CHECK(read(opened, 0, builder.truth.size()).value() == builder.truth);
}

TEST_CASE("qcow: every size of clusters and tables is read") {
  for (uint8_t cluster_bits = kMinClusterBits; cluster_bits <= kMaxClusterBits; ++cluster_bits) {
    for (const uint8_t l2_bits : {kMinL2Bits, uint8_t{9}, kMaxL2Bits}) {
      QcowBuilder builder(
          {.cluster_bits = cluster_bits, .l2_bits = l2_bits, .size = (3u << 20) + 512 * 7});
      const uint64_t last = (builder.truth.size() - 1) >> cluster_bits;
      builder.put_data(0, 1);
      builder.put_compressed(1, 2);
      builder.put_data(last / 2, 3);
      builder.put_compressed(last, 4);
      const Opened opened = open(builder.file);
      CAPTURE(static_cast<int>(cluster_bits));
      CAPTURE(static_cast<int>(l2_bits));
      REQUIRE_MESSAGE(opened.disk, opened.refusal());
      const auto whole = read(opened, 0, builder.truth.size());
      REQUIRE_MESSAGE(whole, whole.error().to_string());
      CHECK(*whole == builder.truth);
    }
  }
}

TEST_CASE("qcow: tables that map more than libqcow allows are given to it in parts") {
  // 512 MiB a table, in the second of which the last part is used.
  QcowBuilder builder({.cluster_bits = 16, .l2_bits = 13, .size = (1u << 30)});
  builder.put_data(8192 + 8191, 5);
  builder.put_compressed(8191, 6);
  const Opened opened = open(builder.file);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  for (const uint64_t cluster : {8192u + 8191u, 8191u}) {
    const auto bytes = read(opened, cluster << 16, 1 << 16);
    REQUIRE_MESSAGE(bytes, bytes.error().to_string());
    CHECK(*bytes == builder.pattern(cluster, cluster == 8191 ? 6 : 5));
  }
}

TEST_CASE("qcow: what is not stored is the backing file's") {
  MemoryFiles files;
  QcowBuilder base({});
  base.put_data(3, 9);
  base.put_compressed(100, 10);
  files.files["base"] = base.file;
  QcowBuilder child({.l2_bits = 12, .size = 128 << 10, .backing_name = "base"});
  child.put_data(100, 11);
  child.put_data(255, 12);
  const Opened opened = open(child.file, {}, files);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  Bytes truth = base.truth;
  truth.resize(128 << 10);
  for (const uint64_t cluster : {100u, 255u}) {
    std::copy_n(child.truth.begin() + static_cast<ptrdiff_t>(cluster * 512), 512,
                truth.begin() + static_cast<ptrdiff_t>(cluster * 512));
  }
  CHECK(read(opened, 0, truth.size()).value() == truth);
  // Version 1 does not state the format: it was guessed, and the operator hears of it.
  REQUIRE(opened.disk->warnings.size() == 1);
  CHECK(opened.disk->warnings.front().find("guessed qcow") != std::string::npos);
}

TEST_CASE("qcow: a backing file that could be raw is refused until the operator says raw") {
  MemoryFiles files;
  files.files["base"] = Bytes(4096, std::byte{7});
  QcowBuilder child({.size = 8192, .backing_name = "base"});
  child.put_data(1, 1);
  CHECK(open(child.file, {}, files).refusal().find("could be raw") != std::string::npos);
  OpenOptions options;
  options.backing_format = "raw";
  const Opened opened = open(child.file, options, files);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  Bytes truth = files.files["base"];
  truth.resize(8192);
  const Bytes own = child.pattern(1, 1);
  std::copy(own.begin(), own.end(), truth.begin() + 512);
  CHECK(read(opened, 0, 8192).value() == truth);
}

TEST_CASE("qcow: a header of version 1 is recognised, one of version 2 is not") {
  const auto probe = [](const Bytes& head, uint64_t size) {
    return probe_qcow({.head = head, .tail = {}, .size = size}).verdict;
  };
  Bytes image = sample().file;
  CHECK(probe(image, image.size()) == ProbeVerdict::kYes);
  CHECK(probe(Bytes(image.begin(), image.begin() + 40), 40) == ProbeVerdict::kDamaged);
  CHECK(open(image, OpenOptions{}).disk);
  image[1] = std::byte{0};  // raw must not be guessed
  CHECK(probe(image, image.size()) == ProbeVerdict::kDamaged);
  image = sample().file;
  image[7] = std::byte{2};
  CHECK(probe(image, image.size()) == ProbeVerdict::kNo);
  CHECK(probe(Bytes(4096), 4096) == ProbeVerdict::kNo);
}

TEST_CASE("qcow: several threads read at the same time") {
  const QcowBuilder builder = sample();
  const Opened opened = open(builder.file);
  REQUIRE(opened.disk);
  const Reader& reader = *opened->layers().front().reader;
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int started = 0; started < 4; ++started) {
    threads.emplace_back([&] {
      for (unsigned round = 0; round < 50; ++round) {
        for (const uint64_t cluster : {0u, 1u, 70u, 71u, 130u, 131u}) {
          // Past the cache of clusters.
          const auto extent = reader.map(cluster * 512, 512, MapFor::kRead);
          Bytes bytes(512);
          if (!extent || !reader.load_cluster(*extent, bytes) ||
              !std::equal(bytes.begin(), bytes.end(),
                          builder.truth.begin() + static_cast<ptrdiff_t>(cluster * 512))) {
            ++wrong;
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace underlay::qcow::test
