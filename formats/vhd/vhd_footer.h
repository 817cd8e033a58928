// Which footer describes a VHD: the trailing one ("Hard Disk Footer Format": it is the authority),
// its copy at the start of a sparse image, or the one behind the last block of an image that was
// copied to a larger device. Pure, as the layout is.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "formats/vhd/vhd_layout.h"

namespace underlay::vhd {

// The footer that describes an image, and where it was found.
struct FoundFooter {
  Footer footer;
  uint64_t at = 0;        // its first byte in the file
  uint64_t data_end = 0;  // no block and no table reaches beyond this byte of the file
  // The copy at 0, when it may speak for an image that ends before the file does: there is no
  // trailing footer, or (is_rival) there is one of another image. Then a footer behind the last
  // block decides.
  std::optional<Footer> copy;
  bool is_rival = false;  // `footer` and `copy` are of different images
  Remarks remarks;
};

// Finds the footer of a file of `size` bytes. `head`: its first bytes, 512 or more (when it has as
// many); `tail`: its last. The trailing footer is the authority; the copy at 0 takes its place when
// that one is damaged or missing. kNotFound, the only failure: nothing speaks for a VHD. Defects:
// there are signs of one, but no whole footer, or two of one image that contradict each other; then
// the footer that is told may be wrong.
Result<FoundFooter> find_footer(ByteSpan head, ByteSpan tail, uint64_t size, Defects& defects);

// What `found`, with a copy, becomes by the 512 bytes behind the last block, at `at` of a file of
// `size` bytes. They decide when they are the same footer as the copy; nullopt when they do not.
// REQUIRES: found.copy, bytes.size() == kFooterBytes.
std::optional<FoundFooter> settled_by_footer_at(uint64_t at, ByteSpan bytes, uint64_t size,
                                                const FoundFooter& found);

}  // namespace underlay::vhd
