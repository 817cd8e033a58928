// Images of qcow version 1, as old QEMU and Xen wrote them: plain and compressed clusters, backing
// files. The clusters are fetched by libqcow. Not served: encrypted ones.
#pragma once

#include <string>

#include "formats/format_table.h"

namespace underlay {

namespace qcow {
struct Header;

// REQUIRES: header.backing_file_size <= kMaxBackingNameBytes.
Result<std::string> read_backing_name(const Header& header, const Source& file);
}  // namespace qcow

ProbeResult probe_qcow(const ProbeInput& input);

Result<std::unique_ptr<Reader>> open_qcow(const ImageToOpen& image);

}  // namespace underlay
