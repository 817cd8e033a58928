// Damaged and hostile VMDK images: every read gives the truth or fails.
#include <doctest/doctest.h>

#include <algorithm>

#include "formats/vmdk/vmdk_layout.h"
#include "io/faulty_source.h"
#include "io/store_le.h"
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

// The image with a directory of so many entries that what it names is not looked at when the image
// is opened. It stands at the end, or before the footer.
BuiltVmdk with_large_directory(const BuiltVmdk& image, bool footer) {
  constexpr uint64_t kEntries = (1 << 20) / 4 + 1;
  BuiltVmdk large = image;
  const size_t tail = footer ? 1536 : 0;
  large.bytes.resize(image.bytes.size() - tail);
  large.directory = large.bytes.size();
  large.bytes.resize(*round_up(large.directory + 4 * kEntries, 512));
  for (size_t i = 0; i < image.tables.size(); ++i) {
    store_le<uint32_t>(large.bytes, large.directory + 4 * i,
                       static_cast<uint32_t>(image.tables[i] / 512));
  }
  large.bytes.insert(large.bytes.end(), image.bytes.end() - static_cast<std::ptrdiff_t>(tail),
                     image.bytes.end());
  const size_t last_header = footer ? large.bytes.size() - 1024 : 0;
  for (const size_t header : {size_t{0}, last_header}) {
    store_le<uint64_t>(large.bytes, header + 12, kEntries * 512 * image.grain_size);
  }
  store_le<uint64_t>(large.bytes, last_header + 56, large.directory / 512);
  return large;
}

TEST_CASE("vmdk: cut at every sector, the image is refused when it is opened") {
  const auto truth = vmdk_content(256 << 10, 1, 192 << 10);
  for (const VmdkSpec& spec : kinds()) {
    const BuiltVmdk image = monolithic(truth, spec);
    for (size_t size = 0; size < image.bytes.size(); size += 512) {
      CAPTURE(size);
      const auto cut = image.bytes.begin() + static_cast<std::ptrdiff_t>(size);
      CHECK_FALSE(Opened(in_memory(Bytes(image.bytes.begin(), cut))).result);
    }
  }
}

TEST_CASE("vmdk: of an image with very many tables, each entry is checked when it is used") {
  const auto truth = vmdk_content(256 << 10, 1, 192 << 10);
  for (const VmdkSpec& spec : kinds()) {
    BuiltVmdk image = with_large_directory(monolithic(truth, spec), spec.footer);
    CHECK(read_all(image).value_or(Bytes{}) == truth);
    const uint32_t good = image.entry(0);
    for (const uint32_t sector :
         {2u, static_cast<uint32_t>(image.directory / 512),
          static_cast<uint32_t>(image.tables[0] / 512) + 3, ~0u, good + (1u << 23)}) {
      CAPTURE(sector);
      image.set_entry(0, sector);
      const bool beyond = uint64_t{sector} * 512 >= image.bytes.size();
      CHECK(first_error(image).kind == (beyond ? ErrorKind::kTruncated : ErrorKind::kMalformed));
      CHECK(count_failures(Opened(in_memory(image.bytes)), truth) == 1);
    }
    for (const uint32_t sector : {1u, static_cast<uint32_t>(image.directory / 512), ~0u}) {
      CAPTURE(sector);
      store_le<uint32_t>(image.bytes, image.directory, sector);
      CHECK(first_error(image).message.find("directory entry 0 ") != std::string::npos);
    }
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
      const Error error = open_error(image);
      CHECK(error.kind == ErrorKind::kMalformed);
      CHECK(error.message.find(fmt::format("{}", sector)) != std::string::npos);
    }
  }
}

TEST_CASE("vmdk: a plain grain that reaches into its table is refused") {
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 4, 256 << 10), {});
  store_le<uint64_t>(image.bytes, 64, 0);  // without the help of overHead
  image.set_entry(0, static_cast<uint32_t>(image.tables[0] / 512 + 3));
  CHECK(open_error(image).kind == ErrorKind::kMalformed);
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
      CHECK(open_error(image).kind == ErrorKind::kTruncated);
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

TEST_CASE("vmdk: grain tables that overlap are refused at open") {
  BuiltVmdk image = monolithic(vmdk_content(4 << 20, 6, 4 << 20), {});
  for (const uint32_t distance : {0u, 1u, 3u}) {
    const auto sector = static_cast<uint32_t>(image.tables[0] / 512) + distance;
    store_le<uint32_t>(image.bytes, image.directory + 4, sector);
    CHECK(open_error(image).message.find("overlap") != std::string::npos);
  }
}

TEST_CASE("vmdk: a grain directory inside the embedded descriptor is refused at open") {
  BuiltVmdk image = monolithic(vmdk_content(256 << 10, 7, 256 << 10), {});
  store_le<uint64_t>(image.bytes, 56, 1);
  CHECK(open_error(image).message.find("inside other metadata") != std::string::npos);
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

TEST_CASE("vmdk: a stream that is filled up with zeros behind its end has its footer before them") {
  const VmdkSpec spec{.compressed = true, .footer = true};
  const auto truth = vmdk_content(256 << 10, 10, 256 << 10);
  const BuiltVmdk image = monolithic(truth, spec);
  for (const size_t more : {1u, 3u, 127u, 2048u}) {
    CAPTURE(more);
    BuiltVmdk padded = image;
    padded.bytes.resize(image.bytes.size() + more * 512);
    CHECK(read_all(padded).value_or(Bytes{}) == truth);
  }
  BuiltVmdk far = image;
  far.bytes.resize(image.bytes.size() + 2049 * 512);
  CHECK(open_error(far).message.find("footer") != std::string::npos);
  BuiltVmdk more = image;
  more.bytes.resize(image.bytes.size() + 512);
  more.bytes.back() = std::byte{1};
  CHECK(open_error(more).message.find("footer") != std::string::npos);
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
