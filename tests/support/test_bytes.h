// Bytes that tests make images of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

namespace underlay::test {

using Bytes = std::vector<std::byte>;

// `count` bytes that differ from sector to sector and from `seed` to `seed`.
inline Bytes pattern(size_t count, uint32_t seed) {
  Bytes bytes(count);
  uint32_t state = seed * 2654435761u + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

// `text` (ASCII) as UTF-16.
inline Bytes utf16le(std::string_view text) {
  Bytes bytes(text.size() * 2);
  for (size_t i = 0; i < text.size(); ++i) bytes[2 * i] = static_cast<std::byte>(text[i]);
  return bytes;
}

// UTF-16 units, whether they are text or not, little-endian.
inline Bytes units(std::initializer_list<uint16_t> list) {
  Bytes bytes;
  for (const uint16_t unit : list) {
    bytes.push_back(static_cast<std::byte>(unit & 0xff));
    bytes.push_back(static_cast<std::byte>(unit >> 8));
  }
  return bytes;
}

}  // namespace underlay::test
