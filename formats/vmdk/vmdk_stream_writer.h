// Writes a VMDK of the kind streamOptimized, from its first byte to its last.
//
//   header | descriptor | grains, each behind a marker; behind those of each grain table: marker,
//   table | ... | marker, directory | marker, footer | end-of-stream marker
#pragma once

#include "formats/vmdk/vmdk_writer.h"

namespace underlay {

// REQUIRES: what write_vmdk() checks.
std::unique_ptr<ImageWriter> write_vmdk_stream(const DiskToWrite& disk, const VmdkToWrite& image,
                                               Sink& sink);

}  // namespace underlay
