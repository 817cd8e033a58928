// A range of bytes of a file, as an image's fields state it.
#pragma once

#include <cstdint>

namespace underlay {

// The end may lie beyond 2^64: nothing here adds offset and length.
struct FileRange {
  uint64_t offset = 0;
  uint64_t length = 0;

  bool operator==(const FileRange&) const = default;

  // Have the two a byte in common? An empty range has none.
  constexpr bool overlaps(const FileRange& other) const {
    if (length == 0 || other.length == 0) return false;
    return offset < other.offset ? other.offset - offset < length
                                 : offset - other.offset < other.length;
  }
};

}  // namespace underlay
