// The second opinion (--reader libyal): an image whose bytes all come from libqcow or libvhdi.
//
// An image is opened by our own reader first, and then given to the library. Ours keeps from the
// library what it misreads or crashes on; no byte of it is served. What the library is known to
// misread is refused, with the reason:
//   libqcow 20201213  images with backing file (it does not say what is allocated), internal
//                     snapshots (it reads the active disk only), clusters with the zero flag (it
//                     takes the flag for a part of the offset), streams that end early,
//                     encrypted images (it opens those whose cipher it does not know)
//   libvhdi 20210425  differencing images (it reads a run of sectors to the end of a byte of the
//                     bitmap), disks whose size is not the one that it reads, zeros where a dynamic
//                     image has data, and data where it has zeros (see LibraryReader)
#pragma once

#include <memory>

#include "formats/libyal/libyal_library.h"
#include "formats/reader.h"

namespace underlay::libyal {

using OpenImage = Result<std::unique_ptr<Reader>> (*)(const ImageToOpen&);

Result<std::unique_ptr<Reader>> open_with_libqcow(const ImageToOpen& image, OpenImage open);
Result<std::unique_ptr<Reader>> open_with_libvhdi(const ImageToOpen& image, OpenImage open);

// What Format::open_by_library wants, from what Format::open has.
template <OpenImage kOpen>
Result<std::unique_ptr<Reader>> by_libqcow(const ImageToOpen& image) {
  return open_with_libqcow(image, kOpen);
}
template <OpenImage kOpen>
Result<std::unique_ptr<Reader>> by_libvhdi(const ImageToOpen& image) {
  return open_with_libvhdi(image, kOpen);
}

}  // namespace underlay::libyal
