// Writes a VMDK of one file, sparse or stream-optimized, as VMware's "Virtual Disk Format 5.0" has
// it.
#pragma once

#include <memory>
#include <string>

#include "formats/writing/image_writer.h"

namespace underlay {

struct VmdkToWrite {
  bool stream_optimized = false;
  std::string adapter_type = "ide";  // or buslogic, lsilogic, legacyESX
  std::string hardware_version = "4";
  std::string file_name;  // as the descriptor gives it: of the file alone, without its folder
};

// `sink` outlives the writer. kUsage when the disk is too large for the format, or has no bytes, or
// when the name cannot stand in a descriptor.
Result<std::unique_ptr<ImageWriter>> write_vmdk(const DiskToWrite& disk, const VmdkToWrite& image,
                                                Sink& sink);

}  // namespace underlay
