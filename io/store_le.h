// Little-endian integers for those who write images.
#pragma once

#include "io/bytes.h"

namespace underlay {

// REQUIRES: offset + sizeof(T) <= bytes.size().
template <class T>
void store_le(MutableByteSpan bytes, size_t offset, T value) {
  store_be<T>(bytes, offset, detail::swap_bytes(value));
}

}  // namespace underlay
