// What libqcow, libvhdi and libvmdk make of an image that our own readers have open: for
// comparisons (compare --second-opinion). Where a library reads other bytes than ours, or takes the
// disk for another size, that is what is looked for. What our readers refuse does not reach it; nor
// is it asked about what it is known to misread, or to fail at:
//   libqcow 20201213  clusters with the zero flag (it takes the flag for a part of the offset),
//                     encrypted images, parents in another format, qcow images with a parent (it
//                     looks for their tables where they are not: see qcow_view.h), what lies
//                     behind a parent's end (it looks for ever); of a chain, more than a cluster at
//                     once (libyal/libqcow#20: it takes all of it from the parent)
//   libvhdi 20210425  differencing images (it reads a run of sectors to the end of a byte of the
//                     bitmap)
//   libvmdk 20200926  grains that are marked as zeros (it takes the mark for the grain's sector),
//                     parents in another format, extents without a file, what lies behind a
//                     parent's end (it fails)
#pragma once

#include <memory>

#include "formats/inspection/second_opinion.h"

namespace underlay::libyal {

// Inspector::second_opinion.
Result<SecondOpinion> opinion_of_libqcow(const std::shared_ptr<const Disk>& own);
Result<SecondOpinion> opinion_of_libvhdi(const std::shared_ptr<const Disk>& own);
Result<SecondOpinion> opinion_of_libvmdk(const std::shared_ptr<const Disk>& own);

}  // namespace underlay::libyal
