// tapdisk's batmap ("tdbatmap"): one bit for each block that has all its sectors.
#pragma once

#include "formats/vhd_blocks.h"

namespace underlay::vhd {

// Notes the batmap of a sparse image that tapdisk wrote, when it is whole (else warns: without it,
// the sector bitmaps say the same), and the room it takes. Fails with kUnsupported when it says
// that the image is encrypted. Uses footer, header, size and data_end. May block.
Result<void> find_batmap(SparseImage& sparse, const ImageToOpen& image);

}  // namespace underlay::vhd
