#include "io/bytes.h"

#include <doctest/doctest.h>

#include <limits>

namespace underlay {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST_CASE("loads read the stated byte order at any alignment") {
  CHECK(load_be<uint8_t>(as_bytes("x\x08"), 1) == 8);
  CHECK(load_be<uint16_t>(as_bytes("\x01\x02"), 0) == 0x0102);
  CHECK(load_le<uint16_t>(as_bytes("\x01\x02"), 0) == 0x0201);
  CHECK(load_be<uint32_t>(as_bytes("x\x01\x02\x03\x04"), 1) == 0x01020304);
  CHECK(load_le<uint32_t>(as_bytes("x\x01\x02\x03\x04"), 1) == 0x04030201);
  CHECK(load_be<uint64_t>(as_bytes("\x01\x02\x03\x04\x05\x06\x07\x08"), 0) == 0x0102030405060708);
  CHECK(load_le<uint64_t>(as_bytes("\x01\x02\x03\x04\x05\x06\x07\x08"), 0) == 0x0807060504030201);
}

TEST_CASE("stores are what loads read") {
  std::array<std::byte, 16> bytes{};
  store_be<uint32_t>(bytes, 3, 0xdeadbeef);
  CHECK(load_be<uint32_t>(bytes, 3) == 0xdeadbeef);
  CHECK(load_le<uint32_t>(bytes, 3) == 0xefbeadde);
  store_be<uint64_t>(bytes, 8, 0x0102030405060708);
  CHECK(load_be<uint64_t>(bytes, 8) == 0x0102030405060708);
  CHECK(bytes[8] == std::byte{1});
  CHECK(bytes[2] == std::byte{0});
}

TEST_CASE("a reader past the end gives zeros and stays failed") {
  ByteReader reader(as_bytes("\x01\x02\x03"));
  CHECK(reader.be<uint16_t>() == 0x0102);
  CHECK(reader.remaining() == 1);
  CHECK(reader.le<uint32_t>() == 0);
  CHECK(!reader.ok());
  CHECK(reader.be<uint8_t>() == 0);  // though one byte was left
  CHECK(reader.bytes(0).empty());
  CHECK(reader.remaining() == 0);
}

TEST_CASE("a reader may be emptied exactly") {
  ByteReader reader(as_bytes("\x01\x02\x03"));
  reader.skip(1);
  CHECK(reader.bytes(2).size() == 2);
  CHECK(reader.ok());
  CHECK(reader.remaining() == 0);
  CHECK(reader.bytes(0).empty());
  CHECK(reader.ok());
  reader.skip(std::numeric_limits<size_t>::max());
  CHECK(!reader.ok());
}

TEST_CASE("checked arithmetic answers nothing instead of wrapping") {
  CHECK(checked_mul<uint64_t>(kMax / 2, 2) == kMax - 1);
  CHECK(!checked_mul<uint64_t>(kMax / 2 + 1, 2));
  CHECK(!checked_mul<uint32_t>(1u << 16, 1u << 16));
}

TEST_CASE("range_within never wraps") {
  CHECK(range_within(0, 0, 0));
  CHECK(range_within(10, 0, 10));
  CHECK(range_within(3, 7, 10));
  CHECK(!range_within(3, 8, 10));
  CHECK(!range_within(11, 0, 10));
  CHECK(!range_within(kMax, 2, kMax));
  CHECK(!range_within(2, kMax, kMax));
  CHECK(range_within(kMax - 1, 1, kMax));
}

TEST_CASE("zeros are found wherever another byte stands") {
  CHECK(is_zero({}));
  std::array<std::byte, 100> bytes{};
  CHECK(is_zero(bytes));
  for (std::byte& byte : bytes) {
    byte = std::byte{0x80};
    CHECK(!is_zero(bytes));
    byte = std::byte{0};
  }
  bytes.fill(std::byte{1});
  CHECK(!is_zero(bytes));
  CHECK(!is_zero(ByteSpan(bytes).first(1)));
}

TEST_CASE("rounding up is exact and refuses to wrap") {
  CHECK(div_round_up(0, 512) == 0);
  CHECK(div_round_up(1, 512) == 1);
  CHECK(div_round_up(512, 512) == 1);
  CHECK(div_round_up(kMax, 2) == kMax / 2 + 1);
  CHECK(round_up(513, 512) == 1024);
  CHECK(round_up(kMax - 511, 512) == kMax - 511);
  CHECK(!round_up(kMax, 512));
  CHECK(is_aligned(1024, 512));
  CHECK(!is_aligned(1025, 512));
}

}  // namespace
}  // namespace underlay
