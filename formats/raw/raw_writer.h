// Writes a raw image: the bytes of the disk, with holes where they are zeros.
#pragma once

#include <memory>

#include "formats/writing/image_writer.h"

namespace underlay {

// `sink` outlives the writer.
std::unique_ptr<ImageWriter> write_raw(const DiskToWrite& disk, Sink& sink);

}  // namespace underlay
