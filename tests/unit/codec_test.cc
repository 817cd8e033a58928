#include "formats/codec.h"

#include <doctest/doctest.h>
#include <zlib.h>
#include <zstd.h>

#include <random>
#include <thread>

#include "io/store_le.h"

namespace underlay {
namespace {

using Bytes = std::vector<std::byte>;

constexpr size_t kCluster = 65536;

// Half random, half repetitive: several deflate blocks, stored and compressed.
Bytes sample(size_t size) {
  std::mt19937 random(1);
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(i < size / 2 ? random() : i / 100);
  }
  return bytes;
}

Bytes deflated(const Bytes& plain, int window_bits) {
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes out(plain.size() + 1000);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}
Bytes raw_deflate(const Bytes& plain) { return deflated(plain, -12); }  // as qemu writes it
Bytes zlib(const Bytes& plain) { return deflated(plain, 15); }

Bytes zstd(ByteSpan plain) {
  Bytes out(ZSTD_compressBound(plain.size()));
  const size_t size = ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 3);
  REQUIRE(ZSTD_isError(size) == 0);
  out.resize(size);
  return out;
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// The plain bytes, or nothing when it fails; a failure must be kMalformed.
std::optional<Bytes> unpacked(Codec codec, ByteSpan in, size_t size = kCluster) {
  Bytes out(size, std::byte{0xee});
  const auto result = decompress(codec, in, out);
  if (result) return out;
  CHECK(result.error().kind == ErrorKind::kMalformed);
  return std::nullopt;
}

struct Packed {
  Codec codec;
  Bytes (*pack)(const Bytes&);
};
const Packed kCodecs[] = {{Codec::kDeflate, raw_deflate},
                          {Codec::kZlib, zlib},
                          {Codec::kZstd, [](const Bytes& plain) { return zstd(plain); }}};

TEST_CASE("a cluster comes back as it was packed") {
  const Bytes plain = sample(kCluster);
  for (const auto& [codec, pack] : kCodecs) {
    const int number = static_cast<int>(codec);
    CAPTURE(number);
    CHECK(unpacked(codec, pack(plain)) == plain);
    CHECK(unpacked(codec, pack(Bytes(kCluster))) == Bytes(kCluster));
  }
}

TEST_CASE("bytes behind the stream do not matter") {
  const Bytes plain = sample(kCluster);
  for (const auto& [codec, pack] : kCodecs) {
    const int number = static_cast<int>(codec);
    CAPTURE(number);
    CHECK(unpacked(codec, pack(plain) + Bytes(511)) == plain);
    CHECK(unpacked(codec, pack(plain) + Bytes(300, std::byte{0xff})) == plain);
  }
}

TEST_CASE("a stream that is too short for the cluster is an error") {
  const Bytes plain = sample(kCluster);
  for (const auto& [codec, pack] : kCodecs) {
    const int number = static_cast<int>(codec);
    CAPTURE(number);
    CHECK(!unpacked(codec, pack(plain), kCluster + 1));
    CHECK(!unpacked(codec, pack(plain) + Bytes(511), kCluster + 512));
    CHECK(!unpacked(codec, pack({})));
  }
}

TEST_CASE("a deflate or zstd stream that is longer than the cluster fills it") {
  const Bytes plain = sample(kCluster);
  const Bytes first(plain.begin(), plain.begin() + 40000);
  for (const auto& [codec, pack] : kCodecs) {
    const int number = static_cast<int>(codec);
    CAPTURE(number);
    CHECK(unpacked(codec, pack(plain), 40000) == first);
  }
}

TEST_CASE("a stream that is cut off is an error wherever it is cut before the cluster is full") {
  const Bytes plain = sample(kCluster);
  for (const auto& [codec, pack] : kCodecs) {
    const int number = static_cast<int>(codec);
    CAPTURE(number);
    const Bytes packed = pack(plain);
    for (size_t keep = 0; keep < packed.size() - 400; keep += 97) {
      CHECK(!unpacked(codec, ByteSpan(packed).first(keep)));
    }
  }
}

TEST_CASE("no bytes at all are an error") {
  for (const auto& [codec, pack] : kCodecs) CHECK(!unpacked(codec, {}));
}

TEST_CASE("garbage is an error") {
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    Bytes garbage(3000);
    for (auto& byte : garbage) byte = static_cast<std::byte>(random());
    garbage[0] = std::byte{0x07};  // deflate: the reserved block type
    for (const auto& [codec, pack] : kCodecs) CHECK(!unpacked(codec, garbage));
  }
}

TEST_CASE("a damaged zlib checksum is an error") {
  Bytes packed = zlib(sample(kCluster));
  packed.back() ^= std::byte{1};
  CHECK(!unpacked(Codec::kZlib, packed));
  // Also when the stream goes on past the end of the cluster.
  CHECK(!unpacked(Codec::kZlib, packed, 40000));
}

TEST_CASE("a zlib stream without its checksum is an error, however full the cluster is") {
  const Bytes packed = zlib(sample(kCluster));
  for (size_t missing = 1; missing <= 5; ++missing) {
    CHECK(!unpacked(Codec::kZlib, ByteSpan(packed).first(packed.size() - missing)));
    CHECK(!unpacked(Codec::kZlib, ByteSpan(packed).first(packed.size() - missing), 40000));
  }
}

TEST_CASE("a cluster may span several zstd frames") {
  const Bytes plain = sample(kCluster);
  const ByteSpan view(plain);
  const Bytes packed =
      zstd(view.first(10)) + zstd(view.subspan(10, 50000)) + zstd({}) + zstd(view.subspan(50010));
  CHECK(unpacked(Codec::kZstd, packed) == plain);
  CHECK(!unpacked(Codec::kZstd, zstd(view.first(10)) + zstd(view.subspan(10, 50000))));
}

TEST_CASE("a zstd frame with a huge window is refused before memory is taken") {
  // RFC 8878 section 3.1.1: magic, a descriptor without content size and without single segment,
  // a window descriptor (exponent << 3), then one raw block.
  for (const unsigned window_log : {24u, 27u, 31u, 41u}) {
    Bytes frame(6);
    store_le<uint32_t>(frame, 0, 0xfd2fb528);
    frame[5] = static_cast<std::byte>((window_log - 10) << 3);
    frame = frame + Bytes{std::byte{0x81}, std::byte{0}, std::byte{0}} + Bytes(16);
    CHECK(!unpacked(Codec::kZstd, frame, 16));
    frame[5] = static_cast<std::byte>((20 - 10) << 3);
    CHECK(unpacked(Codec::kZstd, frame, 16) == Bytes(16));
  }
}

TEST_CASE("a failure leaves nothing behind for the next cluster of the thread") {
  const Bytes plain = sample(kCluster);
  for (const auto& [codec, pack] : kCodecs) {
    const Bytes packed = pack(plain);
    CHECK(!unpacked(codec, ByteSpan(packed).first(packed.size() / 2)));
    CHECK(unpacked(codec, packed) == plain);
  }
}

TEST_CASE("threads unpack at the same time") {
  const Bytes plain = sample(kCluster);
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (const auto& [codec, pack] : kCodecs) {
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&, codec = codec, packed = pack(plain)] {
        for (int round = 0; round < 20; ++round) {
          Bytes out(kCluster);
          if (decompress(codec, packed, out) && out == plain) ++right;
        }
      });
    }
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == 6 * 20);
}

TEST_CASE("a stream buffer has the bytes asked for, and ordinary ones are the thread's own") {
  const std::byte* small = nullptr;
  for (const size_t size : {size_t{1}, size_t{512}, size_t{65536}, size_t{256} << 10}) {
    const StreamBuffer buffer(size);
    REQUIRE(buffer.bytes().size() == size);
    std::fill(buffer.bytes().begin(), buffer.bytes().end(), std::byte{1});
    CHECK((small == nullptr || buffer.bytes().data() == small));
    small = buffer.bytes().data();
  }
  {
    const StreamBuffer large(4 << 20);
    REQUIRE(large.bytes().size() == 4 << 20);
    std::fill(large.bytes().begin(), large.bytes().end(), std::byte{1});
    CHECK(large.bytes().data() != small);
  }
  CHECK(StreamBuffer(0).bytes().empty());
  std::thread([&] { CHECK(StreamBuffer(1).bytes().data() != small); }).join();
}

}  // namespace
}  // namespace underlay
