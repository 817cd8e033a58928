// qcow2 images, version 2 and 3: zlib and zstd clusters, zero clusters, extended L2 entries,
// backing files, external data files, internal snapshots, LUKS encryption, persistent dirty
// bitmaps. Not served: AES encryption.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_qcow2(const ProbeInput& input);

// Serves the snapshot that image.options names, else the active disk. A name that qemu would take
// for a protocol is refused, for backing file and data file alike.
Result<std::unique_ptr<Reader>> open_qcow2(const ImageToOpen& image);

}  // namespace underlay
