// A disk as a library reads it that is not ours: for comparisons.
#pragma once

#include <memory>
#include <string_view>

#include "formats/reader.h"

namespace underlay {

class Disk;

struct SecondOpinion {
  std::string_view library;              // "libqcow"
  std::unique_ptr<const Reader> reader;  // of the whole chain; its size is what the library tells
};

}  // namespace underlay
