// Writes a VHD, fixed or dynamic, as the "Virtual Hard Disk Image Format Specification" has it.
#pragma once

#include <memory>

#include "formats/writing/image_writer.h"

namespace underlay {

struct VhdToWrite {
  bool is_fixed = false;
  // The disk keeps its size, and the geometry says nothing of it. Else its size becomes what a
  // geometry can state: readers that go by either one agree.
  bool force_size = false;
};

// `sink` outlives the writer. kUsage when the disk is too large for the format, or
// has no bytes.
Result<std::unique_ptr<ImageWriter>> write_vhd(const DiskToWrite& disk, const VhdToWrite& image,
                                               Sink& sink);

}  // namespace underlay
