// Writes a qcow2 image, as docs/interop/qcow2.txt (QEMU) specifies it: one disk, without snapshots
// and bitmaps. What is left out is zeros, or the backing file's.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "formats/codec.h"
#include "formats/writing/image_writer.h"

namespace underlay {

struct Qcow2ToWrite {
  uint32_t version = 3;           // or 2
  uint32_t cluster_bits = 16;     // from Qcow2Header::kMinClusterBits to kMaxClusterBits
  Codec codec = Codec::kDeflate;  // or kZstd, in version 3
  bool compress = false;          // clusters that become smaller; else the header alone says codec
  // A backing file, named as the image is to have it; "" = none. Together at most 900 bytes.
  std::string backing{};
  std::string backing_format{};  // as QEMU calls it
};

// `sink` outlives the writer. kUsage when the disk is too large for clusters of that size.
Result<std::unique_ptr<ImageWriter>> write_qcow2(const DiskToWrite& disk, const Qcow2ToWrite& image,
                                                 Sink& sink);

}  // namespace underlay
