// VMDK: VMware's virtual disks. VMware "Virtual Disk Format 5.0".
//
// Served: text descriptors and files with an embedded one; flat, sparse, stream-optimized and zero
// extents; those of ESX snapshots (COWD, seSparse without a journal to replay); links to a parent.
// Not served: raw-device mappings, encrypted disks.
#pragma once

#include <memory>

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_vmdk(const ProbeInput& input);

// The files of the extents are opened here, through image.files.
Result<std::unique_ptr<Reader>> open_vmdk(const ImageToOpen& image);

}  // namespace underlay
