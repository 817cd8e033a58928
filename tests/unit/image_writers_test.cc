// What writes images: in which order, and what it keeps to. That the images are whole is for
// tests/interop/img_convert_test.py.
#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>

#include "formats/qcow2/qcow2_allocator.h"
#include "formats/qcow2/qcow2_writer.h"
#include "formats/raw/raw_writer.h"
#include "formats/vhd/vhd_writer.h"
#include "formats/vmdk/vmdk_writer.h"
#include "formats/writing/compressor.h"
#include "formats/writing/content_id.h"
#include "formats/writing/data_blocks.h"
#include "tests/support/opened_disk.h"

namespace underlay {
namespace {

using test::Bytes;
using test::pattern;

constexpr uint64_t kMiB = 1 << 20;

// Keeps what was written, and how.
class MemorySink final : public Sink {
 public:
  bool is_sequential() const override { return false; }
  Result<void> write(uint64_t offset, ByteSpan bytes) override {
    CHECK(!is_finished);
    if (fails_at && offset + bytes.size() > *fails_at) {
      return fail_errno(ENOSPC, "cannot write the file");
    }
    went_back = went_back || offset < image.size();
    last_write = offset;
    if (image.size() < offset + bytes.size()) image.resize(offset + bytes.size());
    std::ranges::copy(bytes, image.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }
  Result<void> finish(uint64_t size) override {
    CHECK(size >= image.size());
    image.resize(size);
    is_finished = true;
    return {};
  }

  Bytes image;
  bool went_back = false;
  bool is_finished = false;
  uint64_t last_write = 0;
  std::optional<uint64_t> fails_at;
};

using Make = std::function<Result<std::unique_ptr<ImageWriter>>(const DiskToWrite&, Sink&)>;
struct Kind {
  const char* name;
  Make make;
};

VmdkToWrite vmdk(bool stream_optimized) {
  VmdkToWrite image;
  image.stream_optimized = stream_optimized;
  image.file_name = "a.vmdk";
  return image;
}

std::vector<Kind> kinds() {
  return {
      {"raw",
       [](auto& disk, auto& sink) -> Result<std::unique_ptr<ImageWriter>> {
         return write_raw(disk, sink);
       }},
      {"qcow2", [](auto& disk, auto& sink) { return write_qcow2(disk, {}, sink); }},
      {"qcow2, compressed",
       [](auto& disk, auto& sink) { return write_qcow2(disk, {.compress = true}, sink); }},
      {"vpc", [](auto& disk, auto& sink) { return write_vhd(disk, {}, sink); }},
      {"vpc, fixed",
       [](auto& disk, auto& sink) { return write_vhd(disk, {.is_fixed = true}, sink); }},
      {"vmdk", [](auto& disk, auto& sink) { return write_vmdk(disk, vmdk(false), sink); }},
      {"vmdk, stream", [](auto& disk, auto& sink) { return write_vmdk(disk, vmdk(true), sink); }},
  };
}

// The disk in parts of `part` bytes.
Result<void> write_all(const Make& make, const Bytes& disk, uint64_t part, Sink& sink) {
  const auto writer = TRY(make({.size = disk.size()}, sink));
  Bytes prepared;
  for (uint64_t at = 0; at < disk.size(); at += part) {
    const ByteSpan bytes = ByteSpan(disk).subspan(at, std::min(part, disk.size() - at));
    TRY(writer->prepare(bytes, prepared));
    TRY(writer->write(at, bytes, prepared));
  }
  return writer->finish();
}

Bytes disk_with_zeros() {
  Bytes disk = pattern(3 * kMiB + 512, 1);
  std::fill(disk.begin() + 70'000, disk.begin() + kMiB + 100, std::byte{});
  std::fill(disk.begin() + 2 * kMiB, disk.begin() + 2 * kMiB + 300'000, std::byte{'x'});
  return disk;
}

Bytes read_back(const Bytes& image, const std::string& format) {
  OpenOptions options;
  options.format = format;
  const auto opened =
      test::open_as(options, std::make_shared<MemorySource>(image, "image"), test::MemoryFiles());
  REQUIRE_MESSAGE(opened, opened.message());
  return test::read_all(opened);
}

}  // namespace

TEST_CASE("image writers: the disk is read back, in whatever parts it came") {
  const Bytes disk = disk_with_zeros();
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    MemorySink sink;
    REQUIRE(write_all(kind.make, disk, 512 << 10, sink));
    CHECK(sink.is_finished);
    const std::string name = kind.name;
    Bytes read = read_back(sink.image, name.substr(0, name.find(',')));
    REQUIRE(read.size() >= disk.size());
    CHECK(is_zero(ByteSpan(read).subspan(disk.size())));
    read.resize(disk.size());
    CHECK(read == disk);
    for (const uint64_t part : {uint64_t{64} << 10, uint64_t{2} << 20}) {
      MemorySink other;
      REQUIRE(write_all(kind.make, disk, part, other));
      CHECK(other.image == sink.image);
    }
  }
}

TEST_CASE(
    "image writers: those that say so write from the first byte to the last, others the "
    "first bytes last") {
  const Bytes disk = disk_with_zeros();
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    MemorySink sink;
    const auto writer = kind.make({.size = disk.size()}, sink).value();
    REQUIRE(write_all(kind.make, disk, 512 << 10, sink));
    CHECK(sink.went_back != writer->is_sequential());
    CHECK((sink.last_write == 0) != writer->is_sequential());
  }
}

TEST_CASE("image writers: what the sink does not take is an error, and the image is not finished") {
  const Bytes disk = disk_with_zeros();
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    for (const uint64_t at : {uint64_t{0}, kMiB / 2}) {
      MemorySink sink;
      sink.fails_at = at;
      const auto written = write_all(kind.make, disk, 512 << 10, sink);
      REQUIRE(!written);
      CHECK(written.error().sys_errno == ENOSPC);
      CHECK(!sink.is_finished);
    }
  }
}

TEST_CASE("image writers: with zero_block 0, zeros are stored") {
  const Bytes disk(kMiB);
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    MemorySink sink;
    const auto writer = kind.make({.size = disk.size(), .zero_block = 0}, sink).value();
    Bytes prepared;
    REQUIRE(writer->prepare(disk, prepared));
    const size_t before = sink.image.size();
    REQUIRE(writer->write(0, disk, prepared));
    CHECK(sink.image.size() > before);
  }
}

TEST_CASE("qcow2 allocator: refcounts are on the way, and count themselves") {
  // One block for 256 clusters of 512 bytes.
  MemorySink sink;
  Qcow2Allocator clusters(512, sink);
  uint64_t last = 0;
  for (int i = 0; i < 254; ++i) last = clusters.take_cluster().value();
  CHECK(last == 255 * 512);
  // The next range begins with its block.
  CHECK(clusters.take_cluster().value() == 257 * 512);
  const auto end = clusters.finish(512 * 3).value();
  CHECK(end.l1_offset == 258 * 512);
  CHECK(end.refcount_table_offset == 261 * 512);
  CHECK(end.refcount_table_clusters == 1);
  CHECK(end.file_size == 262 * 512);
  const ByteSpan image = sink.image;
  CHECK(load_be<uint64_t>(image, end.refcount_table_offset) == 512);
  CHECK(load_be<uint64_t>(image, end.refcount_table_offset + 8) == 256 * 512);
  for (uint64_t cluster = 0; cluster < 256; ++cluster) {
    CHECK(load_be<uint16_t>(image, 512 + cluster * 2) == 1);
    CHECK(load_be<uint16_t>(image, 256 * 512 + cluster * 2) == (cluster < 6 ? 1 : 0));
  }
}

TEST_CASE("qcow2 allocator: what stands at the end may need more refcounts than there are yet") {
  for (uint64_t taken = 0; taken < 600; taken += 7) {
    MemorySink sink;
    Qcow2Allocator clusters(512, sink);
    for (uint64_t i = 0; i < taken; ++i) REQUIRE(clusters.take_cluster());
    const auto end = clusters.finish(100 * 512).value();
    const uint64_t all = end.file_size / 512;
    CHECK(end.refcount_table_offset == end.l1_offset + 100 * 512);
    const ByteSpan image = sink.image;
    for (uint64_t cluster = 0; cluster < div_round_up(all, 256) * 256; ++cluster) {
      const auto block = load_be<uint64_t>(image, end.refcount_table_offset + cluster / 256 * 8);
      REQUIRE(block != 0);
      REQUIRE(load_be<uint16_t>(image, block + cluster % 256 * 2) == (cluster < all ? 1 : 0));
    }
  }
}

TEST_CASE("qcow2 allocator: streams follow each other, and share clusters") {
  MemorySink sink;
  Qcow2Allocator clusters(4096, sink);
  CHECK(clusters.take_bytes(3000).value() == 2 * 4096);
  CHECK(clusters.take_bytes(2000).value() == 2 * 4096 + 3000);  // into the next cluster
  CHECK(clusters.take_cluster().value() == 4 * 4096);
  CHECK(clusters.take_bytes(100).value() == 2 * 4096 + 5000);  // there is room before it
  CHECK(clusters.take_bytes(4000).value() == 5 * 4096);        // but not for this
  CHECK(clusters.take_bytes(96).value() == 5 * 4096 + 4000);
  CHECK(clusters.take_bytes(1).value() == 6 * 4096);  // the cluster before is full
  REQUIRE(clusters.finish(8));
  const ByteSpan counts = ByteSpan(sink.image).subspan(4096, 16);
  CHECK(load_be<uint16_t>(counts, 2 * 2) == 2);
  CHECK(load_be<uint16_t>(counts, 3 * 2) == 2);
  CHECK(load_be<uint16_t>(counts, 4 * 2) == 1);
  CHECK(load_be<uint16_t>(counts, 5 * 2) == 2);
  CHECK(load_be<uint16_t>(counts, 6 * 2) == 1);
}

TEST_CASE("compressor: what does not become smaller is not taken") {
  Bytes out = pattern(10, 1);
  const Bytes plain = pattern(65536, 2);
  for (const Codec codec : {Codec::kDeflate, Codec::kZlib, Codec::kZstd}) {
    CHECK(compress(codec, plain, plain.size(), out).value() == 0);
    CHECK(out == pattern(10, 1));
  }
  Bytes same(65536, std::byte{'x'});
  for (const Codec codec : {Codec::kDeflate, Codec::kZlib, Codec::kZstd}) {
    out = pattern(10, 1);
    const size_t size = compress(codec, same, same.size(), out).value();
    REQUIRE(out.size() == 10 + size);
    Bytes unpacked(same.size());
    REQUIRE(decompress(codec, ByteSpan(out).subspan(10), unpacked));
    CHECK(unpacked == same);
  }
}

// Readers of qcow2 may keep a window of 4 KiB, as QEMU asks zlib for.
TEST_CASE("compressor: deflate streams refer back no further than 4 KiB") {
  Bytes plain = pattern(6000, 1);
  const Bytes once = plain;
  while (plain.size() < 65536) plain.insert(plain.end(), once.begin(), once.end());
  plain.resize(65536);
  std::fill(plain.begin() + 60'000, plain.end(), std::byte{'x'});
  Bytes stream;
  REQUIRE(compress(Codec::kDeflate, plain, plain.size(), stream).value() > 0);
  z_stream zlib{};
  REQUIRE(inflateInit2(&zlib, -12) == Z_OK);
  zlib.next_in = reinterpret_cast<Bytef*>(stream.data());
  zlib.avail_in = static_cast<uInt>(stream.size());
  Bytes unpacked;
  int status = Z_OK;
  // Piece by piece: what lies further back is only in the window.
  while (status == Z_OK) {
    std::array<Bytef, 512> piece;
    zlib.next_out = piece.data();
    zlib.avail_out = static_cast<uInt>(piece.size());
    status = inflate(&zlib, Z_NO_FLUSH);
    const ByteSpan got = std::as_bytes(std::span(piece)).first(piece.size() - zlib.avail_out);
    unpacked.insert(unpacked.end(), got.begin(), got.end());
  }
  inflateEnd(&zlib);
  CHECK(status == Z_STREAM_END);
  CHECK(unpacked == plain);
}

TEST_CASE("content id: of the content, wherever its zeros come from") {
  const auto id_of = [](const Bytes& disk, uint64_t part) {
    ContentId id("test", disk.size());
    for (uint64_t at = 0; at < disk.size(); at += part) {
      const ByteSpan bytes = ByteSpan(disk).subspan(at, std::min(part, disk.size() - at));
      Bytes digests;
      if (!is_zero(bytes)) ContentId::digest(bytes, digests);
      id.add(at, digests);
    }
    return id.value();
  };
  Bytes disk = disk_with_zeros();
  const auto id = id_of(disk, ContentId::kChunk);
  CHECK(id == id_of(disk, 8 * ContentId::kChunk));
  disk.back() ^= std::byte{1};
  CHECK(id != id_of(disk, ContentId::kChunk));
  CHECK(ContentId("one", 512).value() != ContentId("other", 512).value());
  CHECK(ContentId("one", 512).value() != ContentId("one", 1024).value());
}

TEST_CASE("content id: of an overlay, zeros are not the same as nothing") {
  Bytes digests;
  ContentId::digest(Bytes(ContentId::kChunk), digests);
  for (const auto zeros : {ContentId::Zeros::kAsNothing, ContentId::Zeros::kAsContent}) {
    ContentId with("test", 1 << 20, zeros);
    with.add(0, digests);
    const bool is_same = with.value() == ContentId("test", 1 << 20, zeros).value();
    CHECK(is_same == (zeros == ContentId::Zeros::kAsNothing));
  }
}

}  // namespace underlay
