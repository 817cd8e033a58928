// Which parts of a disk were written since some moment, as an image records it.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "io/error.h"

namespace underlay {

class Disk;

struct DirtyRun {
  uint64_t length = 0;  // guest bytes from the offset that was asked for, > 0
  bool dirty = false;
};

// Thread-safe. Needs the caches that its image was opened with, but not the image's reader.
class DirtyBitmap {
 public:
  DirtyBitmap() = default;
  DirtyBitmap(const DirtyBitmap&) = delete;
  DirtyBitmap& operator=(const DirtyBitmap&) = delete;
  virtual ~DirtyBitmap() = default;

  // What holds at `offset`, and for how long: at most `length` bytes. One slice of a table a call
  // is enough. What lies behind the disk that the bitmap is about is clean. May block. A failure is
  // never taken for either answer. REQUIRES: length > 0.
  virtual Result<DirtyRun> run_at(uint64_t offset, uint64_t length) const = 0;
};

// The bitmap `name` of the first image of the chain that has one, from the top: qemu's rule.
// kNotFound when none has; another error when it is there and cannot be used. May block.
Result<std::shared_ptr<const DirtyBitmap>> find_dirty_bitmap(const Disk& disk,
                                                             std::string_view name);

}  // namespace underlay
