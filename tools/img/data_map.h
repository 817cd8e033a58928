// Which parts of a raw disk have data, told by somebody who knows better than the disk.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/source.h"

namespace underlay::img {

// Bytes [begin, end).
struct DataRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool operator==(const DataRange&) const = default;
};

// The file that `map --output=json` prints: ranges whose "data" is true, ascending, merged; what it
// leaves out has no data. At most 256 MiB of JSON. kMalformed, naming the entry, for anything else.
// Blocks.
Result<std::vector<DataRange>> read_data_map(const std::string& path);

// What holes of the source within the ranges are: holes, or data, zeros that are to be stored.
enum class FileHoles : uint8_t { kHoles, kData };

// `source`, of which what lies outside of `ranges` is holes.
std::shared_ptr<const Source> with_data_map(std::shared_ptr<const Source> source,
                                            std::vector<DataRange> ranges, FileHoles holes);

}  // namespace underlay::img
