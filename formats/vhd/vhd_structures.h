// The structures of a VHD, read from its file: footer, dynamic disk header, batmap, parent
// locators. All that can be read is; what is wrong is told beside it, so that a reader can refuse
// the image and a person can look into it.
#pragma once

#include <optional>
#include <vector>

#include "formats/vhd/vhd_blocks.h"
#include "formats/vhd/vhd_footer.h"
#include "formats/vhd/vhd_parent.h"
#include "formats/vhd/vhd_size.h"

namespace underlay::vhd {

struct Structures {
  FoundFooter found;
  DiskSize size;
  // Of a sparse image. Without defects, as open_vhd() needs it; what is not `has_header` is empty.
  SparseImage sparse;
  bool has_header = false;
  bool has_places = false;            // where structures lie in it is known, and blocks must not
  std::vector<ReadLocator> locators;  // those that are used
  Defects defects;                    // why the image cannot be served, in the order of reading
  Remarks remarks;
};

// Fails when the file is no VHD, or cannot be read. May block.
Result<Structures> read_structures(const Source& source, ImageOptions::VhdSize asked);

// Of the footer that was found at `at`. May block.
Result<FooterDetails> read_footer_details(const Source& source, uint64_t at);

}  // namespace underlay::vhd
