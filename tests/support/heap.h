// How much memory the program has allocated, for tests that bound it.
#pragma once

#include <malloc.h>

#include <cstddef>

namespace underlay {

// Defined only by sanitizers that bring an allocator of their own.
extern "C" size_t __sanitizer_get_current_allocated_bytes() __attribute__((weak));

inline size_t allocated_bytes() {
  if (__sanitizer_get_current_allocated_bytes != nullptr) {
    return __sanitizer_get_current_allocated_bytes();
  }
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

}  // namespace underlay
