// Writes the content of a disk as an image. One implementation for each kind of image.
//
//   parts of the disk --prepare(), any thread--> packed, looked through for zeros
//                     --write(), one thread, in order--> places are given out --> Sink
//
// The same disk gives the same bytes, however many threads there are.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/writing/sink.h"

namespace underlay {

class ImageWriter {
 public:
  ImageWriter() = default;
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;
  virtual ~ImageWriter() = default;

  // Are the bytes written from the first to the last, so that a sequential sink will do?
  virtual bool is_sequential() const = 0;

  // Parts begin at multiples of so many bytes, and end there or at the end of the disk. At most
  // kLargestUnit.
  virtual uint64_t unit() const = 0;
  static constexpr uint64_t kLargestUnit = 2 << 20;

  // What write() needs to know of a part that has bytes. Any thread, several at a time. Fills all
  // of `prepared`, which has what was found out about another part.
  virtual Result<void> prepare(ByteSpan bytes, std::vector<std::byte>& prepared) const = 0;

  // The bytes at `offset` of the disk, with what prepare() made of them. In ascending order; what
  // is left out is zeros, or the parent's. May block. REQUIRES: the part lies within the disk.
  virtual Result<void> write(uint64_t offset, ByteSpan bytes, ByteSpan prepared) = 0;

  // All that is left, up to Sink::finish(). May block.
  virtual Result<void> finish() = 0;
};

// What all writers are made with.
struct DiskToWrite {
  uint64_t size = 0;  // bytes, whole sectors
  // Blocks of so many bytes that are zeros are left out; a power of two from 512 to
  // ImageWriter::kLargestUnit. 0: no zeros are looked for, all that is given is stored.
  uint64_t zero_block = 4 << 10;
};

}  // namespace underlay
