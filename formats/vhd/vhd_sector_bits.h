// What a dynamic VHD stores in sectors that its sector bitmaps say are not there. This reader shows
// it, as QEMU and Windows do; tapdisk and libvhdi show zeros.
#pragma once

#include <vector>

#include "formats/vhd/vhd_blocks.h"

namespace underlay::vhd {

class UnmarkedData {
 public:
  // The references outlive this.
  UnmarkedData(const SparseImage& image, const Source& source) : image_(image), source_(source) {}

  // Has the block that begins at byte `start` of the file data in a sector without a bit? Reads the
  // sectors without one, as far as the first that has. May block. REQUIRES: what the disk needs of
  // the block lies in the file.
  Result<bool> is_in(uint64_t block, uint64_t start);

 private:
  Result<bool> has_data(uint64_t offset, uint64_t length);

  const SparseImage& image_;
  const Source& source_;
  std::vector<std::byte> bitmap_;
  std::vector<std::byte> piece_;
};

}  // namespace underlay::vhd
