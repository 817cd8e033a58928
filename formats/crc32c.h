// CRC-32C (Castagnoli), as iSCSI and VHDX use it.
#pragma once

#include "io/bytes.h"

namespace underlay {

// The checksum of the bytes fed so far. ISA-L computes it at the speed of memory: a log of tens of
// megabytes is checked while somebody waits for the image to open.
class Crc32c {
 public:
  void add(ByteSpan bytes);
  void add_zeros(size_t count);
  uint32_t value() const { return ~state_; }

 private:
  uint32_t state_ = 0xffffffff;
};

// Of `bytes`, with the four bytes at `field`, where the checksum itself lies, taken as zeros.
// REQUIRES: field + 4 <= bytes.size().
uint32_t crc32c_around(ByteSpan bytes, size_t field);

}  // namespace underlay
