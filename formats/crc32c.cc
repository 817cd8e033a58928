#include "formats/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace underlay {

void Crc32c::add(ByteSpan bytes) {
  constexpr size_t kMaxPart = 1 << 30;  // ISA-L counts in int
  while (!bytes.empty()) {
    const ByteSpan part = bytes.first(std::min(bytes.size(), kMaxPart));
    // It does not write to the buffer, although it does not say const.
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(part.data()));
    state_ = crc32_iscsi(data, static_cast<int>(part.size()), state_);
    bytes = bytes.subspan(part.size());
  }
}

void Crc32c::add_zeros(size_t count) {
  constexpr std::array<std::byte, 64> kZeros{};
  while (count > 0) {
    const size_t part = std::min(count, kZeros.size());
    add(ByteSpan(kZeros).first(part));
    count -= part;
  }
}

uint32_t crc32c_around(ByteSpan bytes, size_t field) {
  assert(field <= bytes.size() && bytes.size() - field >= 4);
  Crc32c crc;
  crc.add(bytes.first(field));
  crc.add_zeros(4);
  crc.add(bytes.subspan(field + 4));
  return crc.value();
}

}  // namespace underlay
