// A number that stands for the content of a disk, for formats whose images have an identity: equal
// disks have equal ones, others (by chance) do not.
#pragma once

#include <array>
#include <vector>

#include "formats/writing/sink.h"

namespace underlay {

// Of chunks of kChunk bytes that are no zeros. A part begins at a multiple of that.
class ContentId {
 public:
  static constexpr uint64_t kChunk = 64 << 10;

  // Is a chunk of zeros that is added the same as one that is not? Not in an overlay.
  enum class Zeros : uint8_t { kAsNothing, kAsContent };

  // `tag`: of the format, so that images of two formats differ.
  ContentId(std::string_view tag, uint64_t disk_size, Zeros zeros = Zeros::kAsNothing);

  // Appends the digests of a part's chunks. Any thread.
  static void digest(ByteSpan bytes, std::vector<std::byte>& digests);
  // Adds what digest() appended for the part at `offset`. In ascending order.
  void add(uint64_t offset, ByteSpan digests);

  std::array<std::byte, 16> value() const;

 private:
  void mix(uint64_t number);

  Zeros zeros_;
  std::array<uint64_t, 2> state_{};
};

}  // namespace underlay
