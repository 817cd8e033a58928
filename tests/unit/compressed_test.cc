#include "formats/compressed.h"

#include <doctest/doctest.h>
#include <lzma.h>
#include <zstd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "io/faulty_source.h"
#include "io/memory_source.h"
#include "io/store_le.h"

namespace underlay {
namespace {

using Bytes = std::vector<std::byte>;

Bytes content(size_t size) {
  Bytes bytes(size);
  uint32_t state = 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::byte>((state >> 24) & 0x1f);
  }
  return bytes;
}

const uint8_t* raw(const Bytes& bytes) { return reinterpret_cast<const uint8_t*>(bytes.data()); }

// One xz stream with blocks of `block` bytes.
Bytes xz(const Bytes& data, size_t block, lzma_check check = LZMA_CHECK_CRC64) {
  lzma_mt options{};
  options.threads = 1;
  options.block_size = block;
  options.preset = 0;
  options.check = check;
  lzma_stream stream = LZMA_STREAM_INIT;
  REQUIRE(lzma_stream_encoder_mt(&stream, &options) == LZMA_OK);
  Bytes packed(data.size() * 2 + 4096);
  stream.next_in = raw(data);
  stream.avail_in = data.size();
  stream.next_out = reinterpret_cast<uint8_t*>(packed.data());
  stream.avail_out = packed.size();
  lzma_ret status = LZMA_OK;
  while (status == LZMA_OK) status = lzma_code(&stream, LZMA_FINISH);
  REQUIRE(status == LZMA_STREAM_END);
  packed.resize(packed.size() - stream.avail_out);
  lzma_end(&stream);
  return packed;
}

void append(Bytes& bytes, const Bytes& more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

template <class T>
void append_le(Bytes& bytes, T value) {
  bytes.resize(bytes.size() + sizeof(T));
  store_le<T>(bytes, bytes.size() - sizeof(T), value);
}

// The seekable format of zstd, with checksums.
Bytes seekable(const Bytes& data, size_t frame_size) {
  Bytes file, entries;
  uint32_t frames = 0;
  for (size_t at = 0; at < data.size(); at += frame_size, ++frames) {
    const size_t length = std::min(frame_size, data.size() - at);
    Bytes frame(ZSTD_compressBound(length));
    frame.resize(ZSTD_compress(frame.data(), frame.size(), data.data() + at, length, 1));
    append_le(entries, static_cast<uint32_t>(frame.size()));
    append_le(entries, static_cast<uint32_t>(length));
    append_le(entries, static_cast<uint32_t>(XXH64(data.data() + at, length, 0)));
    append(file, frame);
  }
  append_le(file, uint32_t{0x184d2a5e});
  append_le(file, static_cast<uint32_t>(entries.size() + 9));
  append(file, entries);
  append_le(file, frames);
  append_le(file, uint8_t{0x80});
  append_le(file, uint32_t{0x8f92eab1});
  return file;
}

struct Opened {
  explicit Opened(std::shared_ptr<const Source> packed) {
    Bytes head(std::min<uint64_t>(packed->size(), 512));
    (void)packed->read_at(0, head);
    const auto compression = find_compression(head);
    REQUIRE(compression);
    source = open_compressed(*compression, std::move(packed), caches);
  }
  explicit Opened(const Bytes& packed) : Opened(std::make_shared<MemorySource>(packed, "packed")) {}

  Result<Bytes> read(uint64_t offset, size_t length) const {
    Bytes bytes(length, std::byte{0xcc});
    TRY((*source)->read_at(offset, bytes));
    return bytes;
  }
  std::string refusal() const { return source ? "" : source.error().to_string(); }

  Caches caches;
  Result<std::shared_ptr<const Source>> source = fail(ErrorKind::kUsage, "not opened");
};

// What both forms have in common.
void check_reads(const Bytes& packed, const Bytes& data) {
  const Opened opened(packed);
  REQUIRE_MESSAGE(opened.source, opened.refusal());
  const Source& source = **opened.source;
  CHECK(source.size() == data.size());
  CHECK_FALSE(source.fd());
  std::byte byte{};
  CHECK(source.read_cached(1'200'000, MutableByteSpan(&byte, 1)) == 0);
  for (const auto& [offset, length] : {std::pair<uint64_t, size_t>{1'200'000, 1},
                                       {0, 1},
                                       {999'990, 20},
                                       {data.size() - 1, 1},
                                       {1'048'570, 1'000'000},
                                       {0, data.size()}}) {
    const auto got = opened.read(offset, length);
    REQUIRE(got);
    CHECK(std::memcmp(got->data(), data.data() + offset, length) == 0);
  }
  CHECK(source.read_cached(1'200'000, MutableByteSpan(&byte, 1)) == 1);
  CHECK(byte == data[1'200'000]);
  CHECK(opened.read(data.size(), 1).error().kind == ErrorKind::kTruncated);
  CHECK(opened.read(~uint64_t{0}, 1).error().kind == ErrorKind::kTruncated);
}

TEST_CASE("compressed: blocks of xz are read from anywhere") {
  const Bytes data = content(2'500'001);
  for (const size_t block : {70'000u, 1'000'000u, 2'400'000u, 5'000'000u}) {
    check_reads(xz(data, block), data);
  }
  for (const lzma_check check : {LZMA_CHECK_NONE, LZMA_CHECK_CRC32, LZMA_CHECK_SHA256}) {
    check_reads(xz(data, 1'000'000, check), data);
  }
}

TEST_CASE("compressed: streams of xz may follow each other, with zeros between and behind them") {
  const Bytes data = content(300'000);
  Bytes packed;
  for (size_t at = 0; at < data.size(); at += 100'000) {
    const Bytes part(data.begin() + static_cast<std::ptrdiff_t>(at),
                     data.begin() + static_cast<std::ptrdiff_t>(at + 100'000));
    append(packed, xz(part, 30'000, at == 0 ? LZMA_CHECK_CRC32 : LZMA_CHECK_CRC64));
    append(packed, Bytes(at));  // more than is looked at in one step
  }
  const Opened opened(packed);
  REQUIRE(opened.source);
  CHECK(*opened.read(0, data.size()) == data);
  CHECK(*opened.read(99'990, 20) == Bytes(data.begin() + 99'990, data.begin() + 100'010));
  append(packed, Bytes(2));
  CHECK(Opened(packed).source.error().kind == ErrorKind::kMalformed);
}

TEST_CASE("compressed: the number of xz streams has a limit") {
  const Bytes empty = xz({}, 1);
  Bytes packed;
  for (int i = 0; i <= 10'000; ++i) append(packed, empty);
  CHECK(Opened(packed).refusal().find("xz -dk packed") != std::string::npos);
  packed.resize(packed.size() - empty.size());
  CHECK(Opened(packed).source);
}

TEST_CASE("compressed: seekable frames of zstd are read from anywhere") {
  const Bytes data = content(2'500'001);
  for (const size_t frame : {70'000u, 1'000'000u, 2'400'000u, 5'000'000u}) {
    check_reads(seekable(data, frame), data);
  }
}

TEST_CASE("compressed: a damaged byte is an error or changes nothing") {
  const Bytes data = content(60'000);
  for (const bool is_xz : {true, false}) {
    const Bytes whole = is_xz ? xz(data, 20'000) : seekable(data, 20'000);
    size_t failures = 0;
    for (size_t at = 8; at < whole.size(); at += at < whole.size() - 200 ? 211u : 1u) {
      Bytes damaged = whole;
      damaged[at] ^= std::byte{0x10};
      const Opened opened(damaged);
      if (!opened.source || (*opened.source)->size() != data.size()) {
        ++failures;
        continue;
      }
      for (size_t offset = 0; offset < data.size(); offset += 20'000) {
        const auto got = opened.read(offset, 20'000);
        if (!got) ++failures;
        if (got) CHECK(std::memcmp(got->data(), data.data() + offset, got->size()) == 0);
      }
    }
    CHECK(failures > 100);
  }
}

TEST_CASE("compressed: a file cut anywhere is refused") {
  const Bytes data = content(60'000);
  for (const Bytes& whole : {xz(data, 20'000), seekable(data, 20'000)}) {
    for (size_t size = 16; size < whole.size(); size += 97) {
      CHECK_FALSE(
          Opened(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))).source);
    }
  }
}

TEST_CASE("compressed: a read that fails anywhere is a failure, never other bytes") {
  const Bytes data = content(60'000);
  for (const Bytes& whole : {xz(data, 20'000), seekable(data, 20'000)}) {
    for (int64_t n = 1;; ++n) {  // 0: the head, which says what it is
      const auto source = std::make_shared<FaultySource>(std::make_shared<MemorySource>(whole));
      source->fail_read(n);
      const Opened opened(source);
      if (!opened.source) {
        CHECK(opened.source.error().kind == ErrorKind::kIo);
        continue;
      }
      const auto got = opened.read(0, data.size());
      if (source->reads() <= static_cast<uint64_t>(n)) {
        CHECK(*got == data);
        break;
      }
      REQUIRE_FALSE(got);
      CHECK(got.error().kind == ErrorKind::kIo);
      CHECK(*opened.read(0, data.size()) == data);  // a failure is not kept
    }
  }
}

TEST_CASE("compressed: what can be read from its start only is refused with the way out") {
  const auto refusal = [](std::string_view magic) {
    Bytes bytes(1000);
    std::memcpy(bytes.data(), magic.data(), magic.size());
    return Opened(bytes).refusal();
  };
  CHECK(refusal("\x1f\x8b\x08").find("gzip -dk packed") != std::string::npos);
  CHECK(refusal("\x28\xb5\x2f\xfd").find("zstd -dk packed") != std::string::npos);
  CHECK(refusal("\x50\x2a\x4d\x18").find("zstd -dk packed") != std::string::npos);
  CHECK(Opened(xz(Bytes((32 << 20) + 1), 64 << 20)).refusal().find("xz -dk packed") !=
        std::string::npos);
  check_reads(xz(Bytes(32 << 20), 64 << 20), Bytes(32 << 20));
  CHECK_FALSE(find_compression({}));
  CHECK_FALSE(find_compression(Bytes(512)));
}

TEST_CASE("compressed: a seek table that lies is refused") {
  const Bytes data = content(60'000);
  const Bytes whole = seekable(data, 20'000);
  const auto with = [&](size_t from_end, uint32_t value) {
    Bytes bytes = whole;
    store_le<uint32_t>(bytes, bytes.size() - from_end, value);
    const Opened opened(bytes);
    return opened.source ? ErrorKind::kUsage : opened.source.error().kind;
  };
  for (const uint32_t frames : {0u, 2u, 4u, 1u << 20}) {
    CHECK(with(9, frames) == ErrorKind::kMalformed);
  }
  CHECK(with(9, ~0u) == ErrorKind::kUnsupported);
  CHECK(with(9 + 36, 5) == ErrorKind::kMalformed);             // a frame's compressed size
  CHECK(with(9 + 36, 0x7fffffff) == ErrorKind::kTruncated);    // ... beyond the end
  CHECK(with(9 + 32, 0x7fffffff) == ErrorKind::kUnsupported);  // its decompressed size
  CHECK(with(9 + 36 + 4, 1) == ErrorKind::kMalformed);         // the table's size
  Bytes reserved = whole;
  reserved[reserved.size() - 5] |= std::byte{0x04};
  CHECK(Opened(reserved).source.error().kind == ErrorKind::kMalformed);
}

}  // namespace
}  // namespace underlay
