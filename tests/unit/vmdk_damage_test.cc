// Damaged and hostile VMDK images: every read gives the truth or fails.
#include <doctest/doctest.h>

#include <algorithm>

#include "formats/vmdk_layout.h"
#include "io/faulty_source.h"
#include "tests/support/store_le.h"
#include "tests/support/vmdk_opened.h"

namespace underlay::vmdk_test {
namespace {

constexpr uint64_t kGrainBytes = 4096;

// Each grain-sized read equals `truth` or failed; returns how many failed.
size_t count_failures(const Opened& opened, const Bytes& truth) {
  size_t failed = 0;
  uint64_t offset = 0;
  for (const Result<Bytes>& read : read_steps(opened, kGrainBytes)) {
    if (read) {
      REQUIRE(std::equal(read->begin(), read->end(),
                         truth.begin() + static_cast<std::ptrdiff_t>(offset)));
    } else {
      ++failed;
      CHECK_FALSE(read.error().message.empty());
    }
    offset += kGrainBytes;
  }
  return failed;
}

std::vector<VmdkSpec> kinds() {
  return {VmdkSpec{}, VmdkSpec{.zeroed = true}, VmdkSpec{.compressed = true},
          VmdkSpec{.compressed = true, .footer = true}};
}

// The error of the read of the first grain.
Error first_error(const BuiltVmdk& image) {
  const Opened opened(in_memory(image.bytes));
  REQUIRE(opened.result);
  const auto reads = read_steps(opened, kGrainBytes);
  REQUIRE_FALSE(reads.front());
  return reads.front().error();
}

Error open_error(const BuiltVmdk& image) {
  const Opened opened(in_memory(image.bytes));
  REQUIRE_FALSE(opened.result);
  return opened.result.error();
}

TEST_CASE("vmdk: cut at every sector, every read gives the truth or fails") {
  const auto truth = vmdk_content(256 << 10, 1, 192 << 10);
  for (const VmdkSpec& spec : kinds()) {
    const BuiltVmdk image = monolithic(truth, spec);
    size_t opened_ones = 0;
    for (size_t size = 0; size < image.bytes.size(); size += 512) {
      CAPTURE(size);
      const auto cut = image.bytes.begin() + static_cast<std::ptrdiff_t>(size);
      const Opened opened(in_memory(Bytes(image.bytes.begin(), cut)));
      if (!opened.result) continue;
      ++opened_ones;
      CHECK(count_failures(opened, truth) > 0);
    }
    // The tables of a stream stand at its end: what is cut is refused.
    CHECK((opened_ones > 0) == !spec.compressed);
  }
}

TEST_CASE("vmdk: a fault at the N-th read fails at most that request or the opening") {
  const auto truth = vmdk_content(256 << 10, 2, 192 << 10);
  for (const VmdkSpec& spec : kinds()) {
    const BuiltVmdk image = monolithic(truth, spec);
    bool reached = true;
    for (int64_t n = 0; reached; ++n) {
      CAPTURE(n);
      const auto faulty = std::make_shared<FaultySource>(in_memory(image.bytes));
      faulty->fail_read(n);
      const Opened opened(faulty);
      const size_t failed = opened.result ? count_failures(opened, truth) : 1;
      reached = faulty->reads() > static_cast<uint64_t>(n);
      // The first read of a compressed grain may be made good by the next.
      if (!spec.compressed) CHECK(failed == (reached ? 1 : 0));
      CHECK(failed <= (reached ? 1 : 0));
    }
  }
}

TEST_CASE("vmdk: only unreadable bytes of a compressed grain itself fail it") {
  auto truth = vmdk_content(256 << 10, 1, 192 << 10);
  std::fill_n(truth.begin(), kGrainBytes, std::byte{7});  // its stream is short
  const BuiltVmdk image = monolithic(truth, VmdkSpec{.compressed = true});
  const uint64_t grain = uint64_t{image.entry(0)} * kVmdkSectorBytes;
  const auto stored = load_le<uint32_t>(image.bytes, static_cast<size_t>(grain) + 8);
  const uint64_t end = grain + kVmdkGrainMarkerBytes + stored;
  const auto first_fails = [&](uint64_t offset, uint64_t length) {
    const auto faulty = std::make_shared<FaultySource>(in_memory(image.bytes));
    const Opened opened(faulty);
    REQUIRE(opened.result);
    Bytes out(kGrainBytes);
    Extent extent = *opened.reader().map(0, kGrainBytes, MapFor::kRead);
    REQUIRE(extent.kind == Extent::Kind::kCompressed);
    faulty->fail_range(offset, length);
    const auto loaded = opened.reader().load_cluster(extent, out);
    return !loaded || !std::equal(out.begin(), out.end(), truth.begin());
  };
  CHECK(!first_fails(end, 4096));
  CHECK(first_fails(end - 1, 1));
  CHECK(first_fails(grain + kVmdkGrainMarkerBytes, 1));
  CHECK(first_fails(grain, 1));
}

TEST_CASE("vmdk: a grain where metadata lies is refused, not shown") {
  const auto truth = vmdk_content(256 << 10, 3, 256 << 10);
  for (const VmdkSpec& spec : kinds()) {
    BuiltVmdk image = monolithic(truth, spec);
    const auto directory = static_cast<uint32_t>(image.directory / 512);
    const auto table = static_cast<uint32_t>(image.tables[0] / 512);
    for (const uint32_t sector : {2u, directory, table, table + 3}) {
      CAPTURE(sector);
      image.set_entry(0, sector);
      const Error error = first_error(image);
      CHECK(error.kind == ErrorKind::kMalformed);
      CHECK(error.message.find(fmt::format("{}", sector)) != std::string::npos);
    }
  }
}

TEST_CASE("vmdk: a plain grain that reaches into its table is refused") {
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 4, 256 << 10), {});
  store_le<uint64_t>(image.bytes, 64, 0);  // without the help of overHead
  image.set_entry(0, static_cast<uint32_t>(image.tables[0] / 512 + 3));
  CHECK(first_error(image).kind == ErrorKind::kMalformed);
}

TEST_CASE(
    "vmdk: a grain beyond the end of the file is truncation, also where sectors times 512 "
    "would wrap 32 bits") {
  for (const VmdkSpec& spec : kinds()) {
    BuiltVmdk image = monolithic(vmdk_content(256 << 10, 5, 256 << 10), spec);
    const uint32_t good = image.entry(0);
    const auto end = static_cast<uint32_t>(image.bytes.size() / 512);
    for (const uint32_t sector : {end, 0xffffffffu, good + (1u << 23)}) {
      CAPTURE(sector);
      image.set_entry(0, sector);
      CHECK(first_error(image).kind == ErrorKind::kTruncated);
    }
  }
}

TEST_CASE("vmdk: a grain table beyond the end or in other metadata is refused at open") {
  const BuiltVmdk good = monolithic(vmdk_content(4 << 20, 6, 4 << 20), {});
  for (const uint32_t sector : {0xffffffffu, static_cast<uint32_t>(good.bytes.size() / 512 - 3), 1u,
                                static_cast<uint32_t>(good.directory / 512)}) {
    CAPTURE(sector);
    BuiltVmdk image = good;
    store_le<uint32_t>(image.bytes, image.directory + 4, sector);
    CHECK(open_error(image).message.find("directory entry 1 ") != std::string::npos);
  }
}

TEST_CASE("vmdk: a grain table inside the embedded descriptor is refused") {
  const auto content = vmdk_content(256 << 10, 16, 256 << 10);
  VmdkSpec spec;
  spec.descriptor = vmdk_text("monolithicSparse", {vmdk_sparse_line(content.size() / 512)}) +
                    std::string(8 * 512, '#') + '\n';
  BuiltVmdk image = build_vmdk(content, spec);
  store_le<uint32_t>(image.bytes, image.directory, 2);
  CHECK(open_error(image).kind == ErrorKind::kMalformed);
}

TEST_CASE("vmdk: a grain directory beyond the end is refused at open") {
  for (const uint64_t sector : {uint64_t{1} << 40, kVmdkMaxSectors, kVmdkMaxSectors + 1,
                                kVmdkGdAtEnd - 1, uint64_t{1} << 55}) {
    CAPTURE(sector);
    BuiltVmdk image = monolithic(vmdk_content(256 << 10, 7, 256 << 10), {});
    store_le<uint64_t>(image.bytes, 56, sector);
    CHECK_FALSE(Opened(in_memory(image.bytes)).result);
  }
}

TEST_CASE("vmdk: a capacity whose directory is larger than the file is refused at open") {
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 8, 256 << 10), {});
  store_le<uint64_t>(image.bytes, 12, kVmdkMaxSectors);
  CHECK(open_error(image).kind == ErrorKind::kTruncated);
}

TEST_CASE("vmdk: a grain size of 0 is refused, in the header and in the footer") {
  const VmdkSpec spec{.compressed = true, .footer = true};
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 9, 256 << 10), spec);
  store_le<uint64_t>(image.bytes, image.bytes.size() - 1024 + 20, 0);
  CHECK(open_error(image).message.find("grainSize is 0") != std::string::npos);
  store_le<uint64_t>(image.bytes, 20, 0);
  CHECK(open_error(image).message.find("grainSize is 0") != std::string::npos);
}

TEST_CASE("vmdk: a file that is no multiple of a sector has no footer") {
  const VmdkSpec spec{.compressed = true, .footer = true};
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 10, 256 << 10), spec);
  image.bytes.push_back(std::byte{0});
  CHECK(open_error(image).kind == ErrorKind::kTruncated);
}

TEST_CASE("vmdk: a compressed grain of another place is refused") {
  BuiltVmdk image =
      monolithic(vmdk_content(256 << 10, 11, 256 << 10), VmdkSpec{.compressed = true});
  image.set_entry(0, image.entry(1));
  CHECK(first_error(image).kind == ErrorKind::kMalformed);
}

TEST_CASE("vmdk: a damaged, short or endless compressed grain is refused") {
  const auto truth = vmdk_content(256 << 10, 12, 256 << 10);
  const BuiltVmdk good = monolithic(truth, VmdkSpec{.compressed = true});
  const size_t marker = size_t{good.entry(0)} * 512;
  const auto stored = load_le<uint32_t>(good.bytes, marker + 8);

  BuiltVmdk image = good;
  image.bytes[marker + 12 + stored / 2] ^= std::byte{1};
  CHECK(first_error(image).kind == ErrorKind::kMalformed);
  for (const uint32_t size : {0u, 1u, 20u, stored / 2, 3 * 4096u + 1, 0xffffffffu}) {
    CAPTURE(size);
    image = good;
    store_le<uint32_t>(image.bytes, marker + 8, size);
    CHECK(first_error(image).kind == ErrorKind::kMalformed);
  }
}

TEST_CASE("vmdk: a compressed grain that ends beyond the file is truncation") {
  const auto truth = vmdk_content(256 << 10, 13, 256 << 10);
  BuiltVmdk image = monolithic(truth, VmdkSpec{.compressed = true});
  // The marker of grain 0, copied to the file's last sector: its data would follow.
  const auto marker = image.bytes.begin() + std::ptrdiff_t{image.entry(0)} * 512;
  const Bytes sector(marker, marker + 512);
  image.set_entry(0, static_cast<uint32_t>(image.bytes.size() / 512));
  image.bytes.insert(image.bytes.end(), sector.begin(), sector.end());
  CHECK(first_error(image).kind == ErrorKind::kTruncated);
}

TEST_CASE("vmdk: an embedded descriptor beyond the end of the file is refused") {
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 14, 256 << 10), {});
  for (const uint64_t sector : {uint64_t{1} << 20, kVmdkMaxSectors}) {
    store_le<uint64_t>(image.bytes, 28, sector);
    CHECK(open_error(image).kind == ErrorKind::kTruncated);
  }
}

TEST_CASE("vmdk: every single wrong byte of header, directory and table is safe") {
  const auto truth = vmdk_content(64 << 10, 15, 48 << 10);
  const BuiltVmdk good = monolithic(truth, VmdkSpec{.zeroed = true});
  const size_t table_end = good.tables[0] + 64;
  for (size_t at = 0; at < table_end; ++at) {
    BuiltVmdk image = good;
    image.bytes[at] ^= std::byte{0xff};
    const Opened opened(in_memory(image.bytes));
    if (opened.result) (void)read_steps(opened, kGrainBytes);
  }
}

}  // namespace
}  // namespace underlay::vmdk_test
