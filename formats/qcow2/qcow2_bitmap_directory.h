// The bitmap directory of a qcow2 image, entry by entry.
#pragma once

#include <string_view>
#include <vector>

#include "formats/qcow2/qcow2_bitmap_layout.h"
#include "io/source.h"

namespace underlay {

// Walks the directory. `file` outlives it.
class Qcow2BitmapDirectory {
 public:
  Qcow2BitmapDirectory(const Source& file, const Qcow2BitmapsExtension& extension)
      : file_(file),
        at_(extension.bitmap_directory_offset),
        end_(at_ + extension.bitmap_directory_size),
        left_(extension.nb_bitmaps) {}

  bool at_end() const { return left_ == 0; }
  // Bytes of the directory that no entry has taken so far.
  uint64_t rest() const { return end_ - at_; }

  struct Item {
    Qcow2BitmapEntry entry;
    uint64_t offset = 0;    // in the file
    std::string_view name;  // until the next call
  };
  // REQUIRES: !at_end(). Not to be called again after a failure.
  Result<Item> next();

 private:
  Result<Item> parse();
  Result<void> check_present(uint64_t length) const;

  const Source& file_;
  uint64_t at_;
  uint64_t end_;
  uint32_t left_;
  std::vector<std::byte> variable_;
};

}  // namespace underlay
