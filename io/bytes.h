// Integers in byte strings, and arithmetic on numbers that nobody has checked yet. Bytes of files
// and peers are read only through this header: never by a cast to a struct.
#pragma once

#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

namespace underlay {

using ByteSpan = std::span<const std::byte>;
using MutableByteSpan = std::span<std::byte>;

namespace detail {
template <class T>
constexpr T swap_bytes(T value) {
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(value));
  if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(value));
  if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(value));
}
template <class T>
T load_native(ByteSpan bytes, size_t offset) {
  static_assert(std::is_unsigned_v<T>);
  assert(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}
}  // namespace detail

// REQUIRES: offset + sizeof(T) <= bytes.size(); the caller has checked the length.
template <class T>
T load_be(ByteSpan bytes, size_t offset) {
  const T value = detail::load_native<T>(bytes, offset);
  return std::endian::native == std::endian::big ? value : detail::swap_bytes(value);
}
template <class T>
T load_le(ByteSpan bytes, size_t offset) {
  const T value = detail::load_native<T>(bytes, offset);
  return std::endian::native == std::endian::little ? value : detail::swap_bytes(value);
}

// REQUIRES: offset + sizeof(T) <= bytes.size().
template <class T>
void store_be(MutableByteSpan bytes, size_t offset, T value) {
  static_assert(std::is_unsigned_v<T>);
  assert(offset <= bytes.size() && sizeof(T) <= bytes.size() - offset);
  const T wire = std::endian::native == std::endian::big ? value : detail::swap_bytes(value);
  std::memcpy(bytes.data() + offset, &wire, sizeof(T));
}

// The bytes as text, without copying. The view lives as long as `bytes`.
inline std::string_view as_text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline ByteSpan as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Are all of them zero? True for none.
inline bool is_zero(ByteSpan bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// Reads fields one after the other. A read past the end gives zeros and makes ok() false for good,
// so a parser may read a whole structure and check once.
class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : rest_(bytes) {}

  template <class T>
  T be() {
    const ByteSpan field = bytes(sizeof(T));
    return field.empty() ? T{0} : load_be<T>(field, 0);
  }
  template <class T>
  T le() {
    const ByteSpan field = bytes(sizeof(T));
    return field.empty() ? T{0} : load_le<T>(field, 0);
  }
  // The next `count` bytes, or an empty span (and ok() false) when there are fewer.
  ByteSpan bytes(size_t count) {
    if (!ok_ || count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const ByteSpan taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  void skip(size_t count) { (void)bytes(count); }
  size_t remaining() const { return ok_ ? rest_.size() : 0; }
  bool ok() const { return ok_; }

 private:
  ByteSpan rest_;
  bool ok_ = true;
};

// Arithmetic that answers nullopt instead of wrapping.
template <class T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}
// Does [offset, offset + length) lie within [0, size)? Never wraps.
[[nodiscard]] constexpr bool range_within(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}
[[nodiscard]] constexpr uint64_t div_round_up(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0 ? 1 : 0);
}
// nullopt when the rounded value does not fit. REQUIRES: unit > 0.
[[nodiscard]] constexpr std::optional<uint64_t> round_up(uint64_t value, uint64_t unit) {
  return checked_mul(div_round_up(value, unit), unit);
}
[[nodiscard]] constexpr bool is_aligned(uint64_t value, uint64_t unit) { return value % unit == 0; }

}  // namespace underlay
