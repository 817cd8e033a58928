// Writes a VHD, fixed, dynamic or differencing, as the "Virtual Hard Disk Image Format
// Specification" has it.
#pragma once

#include <memory>
#include <optional>

#include "formats/vhd/vhd_differencing.h"
#include "formats/writing/image_writer.h"

namespace underlay {

struct VhdToWrite {
  bool is_fixed = false;
  // The disk keeps its size, and the geometry says nothing of it. Else its size becomes what a
  // geometry can state: readers that go by either one agree.
  bool force_size = false;
  // Differencing: what is not written is the parent's, whose size the disk gets. REQUIRES: neither
  // is_fixed nor force_size.
  std::optional<vhd::ParentIdentity> parent{};
};

// `sink` outlives the writer. kUsage when the disk is too large for the format, has no bytes, or is
// not as large as its parent.
Result<std::unique_ptr<ImageWriter>> write_vhd(const DiskToWrite& disk, const VhdToWrite& image,
                                               Sink& sink);

}  // namespace underlay
