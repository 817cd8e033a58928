// The raw image that replies are compared with.
#pragma once

#include <string>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay::bench {

// A file in memory, unmapped at the end.
class RawImage {
 public:
  static Result<RawImage> open(const std::string& path);
  RawImage() = default;
  RawImage(RawImage&& other) noexcept;
  RawImage& operator=(RawImage&& other) noexcept;
  ~RawImage();

  bool present() const { return !bytes_.empty(); }
  // Are these the bytes at `offset`? Says where they differ first.
  Result<void> compare(uint64_t offset, ByteSpan got) const;

 private:
  std::string path_;
  ByteSpan bytes_;
};

}  // namespace underlay::bench
