// Images of qcow version 1, as old QEMU and Xen wrote them: plain and compressed clusters, backing
// files. The clusters are fetched by libqcow. Not served: encrypted ones.
#pragma once

#include "formats/format_table.h"

namespace underlay {

ProbeResult probe_qcow(const ProbeInput& input);

Result<std::unique_ptr<Reader>> open_qcow(const ImageToOpen& image);

}  // namespace underlay
