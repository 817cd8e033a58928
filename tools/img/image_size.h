// How large an image file will be: qemu-img measure's arithmetic, for the formats that it knows.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay::img {

// A dirty bitmap that goes along.
struct BitmapToStore {
  std::string name;
  uint64_t granularity = 0;  // bytes of the disk for each bit, > 0
};

// The disk that the image is to have.
struct DiskToStore {
  uint64_t size = 0;  // bytes, whole sectors
  // Bytes in clusters of so many bytes that are no zeros throughout, each counted whole. Null: the
  // disk is new, and has no data.
  std::function<Result<uint64_t>(uint64_t cluster_size)> data_bytes{};
  // nullopt: of a format that keeps none.
  std::optional<std::vector<BitmapToStore>> bitmaps{};
};

struct ImageSize {
  uint64_t required = 0;         // bytes of the file, when the disk was written to it
  uint64_t fully_allocated = 0;  // when all of the disk has data
  // What the bitmaps take beyond; nullopt where they cannot be copied.
  std::optional<uint64_t> bitmaps{};
};

// `options`: the values of all -o. kUsage for formats whose sizes qemu-img does not measure either,
// and for what such an image cannot have.
Result<ImageSize> image_size(std::string_view format, const std::vector<std::string>& options,
                             const DiskToStore& disk);

}  // namespace underlay::img
