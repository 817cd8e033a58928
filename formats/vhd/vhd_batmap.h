// tapdisk's batmap ("tdbatmap"): one bit for each block that has all its sectors.
#pragma once

#include "formats/vhd/vhd_blocks.h"

namespace underlay::vhd {

// Where its header is, or would be: in the sector behind the BAT.
uint64_t batmap_header_at(const DynamicHeader& header);

// Notes the batmap of a sparse image that tapdisk wrote, when it is whole (else a remark: without
// it, the sector bitmaps say the same), and the room it takes. Defects: it says that the image is
// encrypted. Uses footer, header, size and data_end. May block.
Result<void> find_batmap(SparseImage& sparse, const Source& source, Defects& defects,
                         Remarks& remarks);

}  // namespace underlay::vhd
