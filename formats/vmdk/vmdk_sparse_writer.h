// Writes a VMDK of the kind monolithicSparse: grains as they are.
//
//   header | descriptor | redundant directory and tables | directory and tables | grains ...
//
// All tables have their place from the start; those of nothing but zeros stay holes of the file.
#pragma once

#include "formats/vmdk/vmdk_writer.h"

namespace underlay {

// REQUIRES: what write_vmdk() checks.
std::unique_ptr<ImageWriter> write_vmdk_sparse(const DiskToWrite& disk, const VmdkToWrite& image,
                                               Sink& sink);

}  // namespace underlay
