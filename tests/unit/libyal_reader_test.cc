// The second opinion (--reader libyal): the libraries' bytes, and what is kept from them.
#include <doctest/doctest.h>

#include "formats/format_table.h"
#include "formats/libyal/libyal_file.h"
#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "tests/support/qcow2_fixture.h"
#include "tests/support/vhd_disks.h"

namespace underlay {
namespace {

using Bytes = std::vector<std::byte>;

// An image opened through a library, from memory; and what outlives it.
struct OpenedByLibrary {
  std::unique_ptr<Caches> caches = std::make_unique<Caches>();
  Result<OpenedDisk> disk = fail(ErrorKind::kUsage, "not opened");

  std::string refusal() const { return disk ? "" : disk.error().to_string(); }
  Result<Bytes> read(uint64_t offset, size_t length) const {
    return read_bytes(*disk->disk, offset, length);
  }
};

OpenedByLibrary open(std::string_view format, std::shared_ptr<const Source> source,
                     std::optional<std::string> snapshot = std::nullopt) {
  OpenOptions options;
  options.format = format;
  options.reader = ReaderChoice::kLibyal;
  options.image.snapshot = std::move(snapshot);
  OpenedByLibrary opened;
  vhd::test::MemoryFiles files = vhd::test::parent_files();
  opened.disk = open_disk(OpenedFile{.source = std::move(source), .path = "image"}, options, files,
                          *opened.caches);
  return opened;
}
OpenedByLibrary open(std::string_view format, const Bytes& image) {
  return open(format, std::make_shared<MemorySource>(image, "image"));
}

bool has(const std::string& line, std::string_view words) {
  return line.find(words) != std::string::npos;
}

Qcow2Builder qcow2_sample() {
  Qcow2Builder builder({.size = 96 << 10});
  builder.put_data(0, 1);
  builder.put_compressed(1, 2);
  builder.put_data(190, 3);
  builder.put_compressed(191, 4);
  return builder;
}

TEST_CASE("libyal: qcow2 clusters read the same as natively") {
  const Qcow2Builder builder = qcow2_sample();
  const OpenedByLibrary opened = open("qcow2", builder.file);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  const auto whole = opened.read(0, builder.truth.size());
  REQUIRE_MESSAGE(whole, whole.error().to_string());
  CHECK(*whole == builder.truth);
  const auto extent = opened.disk->disk->map(70000, 4096, MapFor::kReadNow);
  REQUIRE(extent);
  CHECK(extent->kind == Extent::Kind::kCopied);
}

TEST_CASE("libyal: a dynamic vhd reads the same as natively") {
  const vhd::test::VhdBuilder builder = vhd::test::dynamic();
  const OpenedByLibrary opened = open("vpc", builder.build());
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  const Bytes truth = vhd::test::content_of(builder);
  CHECK(opened.read(0, truth.size()).value() == truth);
}

TEST_CASE("libyal: clusters with the zero flag, which libqcow does not know, fail") {
  for (const bool reserved : {true, false}) {
    Qcow2Builder builder = qcow2_sample();
    builder.put_zeros(150, reserved);
    const OpenedByLibrary opened = open("qcow2", builder.file);
    REQUIRE_MESSAGE(opened.disk, opened.refusal());
    const auto bytes = opened.read(150 * 512, 512);
    REQUIRE_FALSE(bytes);
    CHECK(has(bytes.error().to_string(), "zero flag"));
    // The unit of 64 KiB before it is still read.
    CHECK(opened.read(0, 512).value() == builder.pattern(0, 1));
  }
}

TEST_CASE("libyal: a stream that ends early fails") {
  Qcow2Builder builder = qcow2_sample();
  builder.put_stream(5, pack(Codec::kDeflate, Bytes(100, std::byte{1})));
  const OpenedByLibrary opened = open("qcow2", builder.file);
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  CHECK_FALSE(opened.read(0, 512));
  CHECK(opened.read(190 * 512, 512).value() == builder.pattern(190, 3));
}

TEST_CASE("libyal: clusters beyond the end of the file are refused") {
  Qcow2Builder builder = qcow2_sample();
  builder.put_entry(5, uint64_t{1} << 63 | 1 << 20);
  const OpenedByLibrary opened = open("qcow2", builder.file);
  REQUIRE_FALSE(opened.disk);
  CHECK(has(opened.refusal(), "beyond the end of the file"));
}

TEST_CASE("libyal: zeros that libvhdi reads where a dynamic vhd has data are not served") {
  vhd::test::VhdBuilder builder = vhd::test::dynamic();
  for (auto& [number, block] : builder.blocks) block.bitmap = Bytes(1, std::byte{0});
  const OpenedByLibrary opened = open("vpc", builder.build());
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  const auto bytes = opened.read(0, 512);
  REQUIRE_FALSE(bytes);
  CHECK(has(bytes.error().to_string(), "libvhdi reads zeros at guest offset 4096"));
}

TEST_CASE("libyal: data that libvhdi reads where a dynamic vhd has zeros is not served") {
  vhd::test::VhdBuilder builder = vhd::test::dynamic();
  builder.creator = std::string("tap\0", 4);
  builder.creator_version = 0x00010001;  // without a batmap
  for (auto& [number, block] : builder.blocks) block.bitmap = Bytes(1, std::byte{0xfe});
  const OpenedByLibrary opened = open("vpc", builder.build());
  REQUIRE_MESSAGE(opened.disk, opened.refusal());
  const auto bytes = opened.read(0, 512);
  REQUIRE_FALSE(bytes);
  CHECK(
      has(bytes.error().to_string(), "libvhdi reads other bytes than zeros at guest offset 7680"));
}

TEST_CASE("libyal: what the libraries misread as a whole is refused with the reason") {
  CHECK(has(open("vpc", vhd::test::differencing().build()).refusal(), "misreads differencing"));
  Qcow2Builder backed = qcow2_sample();
  backed.set_backing_name("parent.vhd");
  CHECK(has(open("qcow2", backed.file).refusal(), "backing file"));
  const auto image = std::make_shared<MemorySource>(qcow2_sample().file, "image");
  CHECK(has(open("qcow2", image, "first").refusal(), "no internal snapshots"));
  CHECK(has(open("raw", Bytes(512)).refusal(), "no library reads raw"));
}

TEST_CASE("libyal: what a library does not open is its own error in one line") {
  const Qcow2Builder extended({.cluster_bits = 14, .size = 1 << 20, .extended_l2 = true});
  const std::string line = open("qcow2", extended.file).refusal();
  CAPTURE(line);
  CHECK(has(line, "libqcow cannot open the image: libqcow_"));
  CHECK(has(line, "unsupported incompatible features flags: 0x00000010"));
  CHECK_FALSE(has(line, "\n"));
}

TEST_CASE("libyal: a disk whose size the library takes for another is refused") {
  vhd::test::VhdBuilder builder = vhd::test::dynamic();
  builder.creator = "vbox";  // whose disks have the size of their geometry
  builder.cylinders = 40;
  builder.heads = 1;
  builder.sectors_per_track = 1;
  const std::string line = open("vpc", builder.build()).refusal();
  CAPTURE(line);
  CHECK(has(line, "libvhdi takes the disk for"));
}

TEST_CASE("libyal: images that our own reader refuses do not reach the library") {
  Qcow2Builder builder = qcow2_sample();
  builder.set32(36, 0x7fffffff);
  CHECK(has(open("qcow2", builder.file).refusal(), "l1_size"));
}

TEST_CASE("libyal: encrypted images are refused whether libqcow knows the cipher or not") {
  const libyal::Library* library = libyal::libqcow().value();
  for (const uint32_t method : {1u, 2u, 7u}) {
    Qcow2Builder builder = qcow2_sample();
    builder.set32(32, method);
    const auto opened = libyal::LibraryFile::open(
        *library, {.image = std::make_shared<MemorySource>(builder.file, "image")});
    REQUIRE_FALSE(opened);
    CAPTURE(opened.error().to_string());
    CHECK(has(opened.error().to_string(), "image"));
  }
  CHECK(libyal::LibraryFile::open(
      *library, {.image = std::make_shared<MemorySource>(qcow2_sample().file, "image")}));
}

TEST_CASE("libyal: a failed read of the file is that failure, never data") {
  const Qcow2Builder builder = qcow2_sample();
  for (int64_t nth = 0; nth < 30; ++nth) {
    const auto source =
        std::make_shared<FaultySource>(std::make_shared<MemorySource>(builder.file, "image"));
    source->fail_read(nth);
    const OpenedByLibrary opened = open("qcow2", source);
    CAPTURE(nth);
    if (!opened.disk) {
      CHECK(opened.disk.error().kind == ErrorKind::kIo);
      continue;
    }
    const auto whole = opened.read(0, builder.truth.size());
    if (whole) {
      CHECK(*whole == builder.truth);
    } else {
      CHECK(whole.error().kind == ErrorKind::kIo);
    }
  }
}

}  // namespace
}  // namespace underlay
