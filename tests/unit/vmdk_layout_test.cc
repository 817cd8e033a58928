#include "formats/vmdk/vmdk_layout.h"

#include <doctest/doctest.h>

#include <functional>

#include "io/store_le.h"
#include "tests/support/vmdk_builder.h"

namespace underlay::vmdk_test {
namespace {

std::vector<std::byte> header_bytes(bool compressed = false) {
  VmdkSpec spec;
  spec.grain_size = 128;
  spec.compressed = compressed;
  spec.descriptor = "text";
  std::vector<std::byte> bytes = build_vmdk(std::vector<std::byte>(1 << 20), spec).bytes;
  bytes.resize(kVmdkSectorBytes);
  return bytes;
}

struct WrongField {
  const char* name;
  std::function<void(MutableByteSpan)> damage;
  ErrorKind kind;
  const char* message;
};

const std::vector<WrongField>& wrong_fields() {
  static const std::vector<WrongField> fields = {
      {"magic", [](auto b) { b[0] = std::byte{'k'}; }, ErrorKind::kMalformed, "KDMV"},
      {"version 0", [](auto b) { store_le<uint32_t>(b, 4, 0); }, ErrorKind::kUnsupported,
       "version is 0"},
      {"version 4", [](auto b) { store_le<uint32_t>(b, 4, 4); }, ErrorKind::kUnsupported,
       "version is 4"},
      {"flag 18", [](auto b) { store_le<uint32_t>(b, 8, 0x40003); }, ErrorKind::kUnsupported,
       "0x40000"},
      {"capacity", [](auto b) { store_le<uint64_t>(b, 12, 1ull << 54); }, ErrorKind::kLimit,
       "capacity is"},
      {"grain 0", [](auto b) { store_le<uint64_t>(b, 20, 0); }, ErrorKind::kMalformed,
       "grainSize is 0"},
      {"grain 4", [](auto b) { store_le<uint64_t>(b, 20, 4); }, ErrorKind::kMalformed,
       "grainSize is 4"},
      {"grain 96", [](auto b) { store_le<uint64_t>(b, 20, 96); }, ErrorKind::kMalformed,
       "grainSize is 96"},
      {"grain 128 MiB", [](auto b) { store_le<uint64_t>(b, 20, 256 << 10); }, ErrorKind::kLimit,
       "grainSize is 262144"},
      {"grain 2^63", [](auto b) { store_le<uint64_t>(b, 20, 1ull << 63); }, ErrorKind::kLimit,
       "grainSize is"},
      {"descriptor size", [](auto b) { store_le<uint64_t>(b, 36, 2049); }, ErrorKind::kLimit,
       "descriptorSize is 2049"},
      {"descriptor at 0", [](auto b) { store_le<uint64_t>(b, 28, 0); }, ErrorKind::kMalformed,
       "descriptorOffset is 0"},
      {"descriptor wraps", [](auto b) { store_le<uint64_t>(b, 28, 1ull << 55); },
       ErrorKind::kMalformed, "descriptorOffset is"},
      {"table entries", [](auto b) { store_le<uint32_t>(b, 44, 1024); }, ErrorKind::kMalformed,
       "numGTEsPerGT is 1024"},
      {"directory at 0", [](auto b) { store_le<uint64_t>(b, 56, 0); }, ErrorKind::kMalformed,
       "gdOffset is 0"},
      {"overhead wraps", [](auto b) { store_le<uint64_t>(b, 64, 1ull << 55); },
       ErrorKind::kMalformed, "overHead is"},
      {"line ends", [](auto b) { b[75] = std::byte{'\n'}; }, ErrorKind::kMalformed, "text mode"},
      {"algorithm 2", [](auto b) { store_le<uint16_t>(b, 77, 2); }, ErrorKind::kUnsupported,
       "compressAlgorithm is 2"},
      {"algorithm without flag", [](auto b) { store_le<uint16_t>(b, 77, 1); },
       ErrorKind::kMalformed, "contradict"},
      {"markers alone", [](auto b) { store_le<uint32_t>(b, 8, 0x20001); }, ErrorKind::kMalformed,
       "contradict"},
  };
  return fields;
}

TEST_CASE("vmdk layout: a good header gives the fields of the specification") {
  auto bytes = header_bytes();
  store_le<uint8_t>(bytes, 72, 1);
  const auto header = parse_vmdk_sparse_header(bytes);
  REQUIRE(header);
  CHECK(header->version == 1);
  CHECK(header->capacity == 2048);
  CHECK(header->grain_size == 128);
  CHECK(header->descriptor_offset == 1);
  CHECK(header->descriptor_size == 1);
  CHECK(header->gd_offset == 2);
  CHECK(header->over_head == 128);
  CHECK(header->unclean_shutdown);
  CHECK_FALSE(header->compressed);
}

TEST_CASE("vmdk layout: one wrong field refuses the header and is named") {
  for (const WrongField& field : wrong_fields()) {
    CAPTURE(field.name);
    auto bytes = header_bytes();
    field.damage(bytes);
    const auto header = parse_vmdk_sparse_header(bytes);
    REQUIRE_FALSE(header);
    CHECK(header.error().kind == field.kind);
    CHECK(header.error().message.find(field.message) != std::string::npos);
  }
}

TEST_CASE("vmdk layout: a header cut short is refused at every length") {
  const auto bytes = header_bytes();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const auto header = parse_vmdk_sparse_header(ByteSpan(bytes).first(size));
    REQUIRE_FALSE(header);
    CHECK(header.error().kind == ErrorKind::kTruncated);
  }
}

TEST_CASE("vmdk layout: compatible flags are ignored, and unused line-end bytes") {
  auto bytes = header_bytes();
  store_le<uint32_t>(bytes, 8, 0x8002);
  CHECK(parse_vmdk_sparse_header(bytes));
  store_le<uint32_t>(bytes, 73, 0);
  CHECK(parse_vmdk_sparse_header(bytes));
  store_le<uint32_t>(bytes, 8, 0x8003);
  CHECK_FALSE(parse_vmdk_sparse_header(bytes));
}

TEST_CASE("vmdk layout: compressed grains are held in memory, so their limit is lower") {
  auto bytes = header_bytes(true);
  store_le<uint64_t>(bytes, 20, 4096);
  CHECK(parse_vmdk_sparse_header(bytes));
  store_le<uint64_t>(bytes, 20, 8192);
  const auto header = parse_vmdk_sparse_header(bytes);
  REQUIRE_FALSE(header);
  CHECK(header.error().kind == ErrorKind::kLimit);
}

TEST_CASE("vmdk layout: compressed without markers is refused") {
  auto bytes = header_bytes(true);
  store_le<uint32_t>(bytes, 8, 0x10001);
  CHECK_FALSE(parse_vmdk_sparse_header(bytes));
}

TEST_CASE("vmdk layout: capacity 0 means a descriptor only, and needs one") {
  auto bytes = header_bytes();
  store_le<uint64_t>(bytes, 12, 0);
  store_le<uint64_t>(bytes, 20, 0);
  CHECK(parse_vmdk_sparse_header(bytes));
  store_le<uint64_t>(bytes, 36, 0);
  CHECK_FALSE(parse_vmdk_sparse_header(bytes));
}

TEST_CASE("vmdk layout: the footer stands between its marker and the end of the stream") {
  VmdkSpec spec;
  spec.compressed = true;
  spec.footer = true;
  const auto image = build_vmdk(vmdk_content(64 << 10, 1, 64 << 10), spec);
  const auto header = parse_vmdk_sparse_header(image.bytes);
  REQUIRE(header);
  CHECK(header->gd_offset == kVmdkGdAtEnd);
  const ByteSpan tail = ByteSpan(image.bytes).last(kVmdkFooterBytes);
  const auto footer = parse_vmdk_footer(tail, *header);
  REQUIRE(footer);
  CHECK(footer->gd_offset == image.directory / 512);

  const auto refuses = [&](size_t offset, uint8_t value) {
    std::vector<std::byte> bytes(tail.begin(), tail.end());
    bytes[offset] = std::byte{value};
    return !parse_vmdk_footer(bytes, *header);
  };
  CHECK(refuses(12, 2));         // marker's type
  CHECK(refuses(8, 1));          // marker's size
  CHECK(refuses(512, 'k'));      // footer's magic
  CHECK(refuses(512 + 12, 1));   // another capacity
  CHECK(refuses(512 + 20, 16));  // another grain size
  CHECK(refuses(1024, 1));       // end-of-stream marker's value
  CHECK(refuses(1024 + 8, 1));   // its size
  CHECK(refuses(1024 + 12, 1));  // its type
  CHECK_FALSE(parse_vmdk_footer(tail.first(1024), *header));
  std::vector<std::byte> again(tail.begin(), tail.end());
  store_le<uint64_t>(again, 512 + 56, kVmdkGdAtEnd);
  CHECK_FALSE(parse_vmdk_footer(again, *header));
}

TEST_CASE("vmdk layout: a grain's marker has its sector and a bounded size") {
  std::vector<std::byte> marker(kVmdkGrainMarkerBytes);
  store_le<uint64_t>(marker, 0, 128);
  store_le<uint32_t>(marker, 8, 100);
  CHECK(parse_vmdk_grain_marker(marker, 128, 128).value_or(0) == 100);
  CHECK_FALSE(parse_vmdk_grain_marker(marker, 256, 128));
  CHECK_FALSE(parse_vmdk_grain_marker(ByteSpan(marker).first(11), 128, 128));
  store_le<uint32_t>(marker, 8, 0);
  CHECK_FALSE(parse_vmdk_grain_marker(marker, 128, 128));
  store_le<uint32_t>(marker, 8, 2 * 65536 + 4096);
  CHECK(parse_vmdk_grain_marker(marker, 128, 128));
  store_le<uint32_t>(marker, 8, 2 * 65536 + 4097);
  CHECK_FALSE(parse_vmdk_grain_marker(marker, 128, 128));
  store_le<uint32_t>(marker, 8, 0xffffffff);
  CHECK_FALSE(parse_vmdk_grain_marker(marker, 128, 128));
}

}  // namespace
}  // namespace underlay::vmdk_test
