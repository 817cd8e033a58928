// How a fuzzer's bytes become an image. For most formats they are it (plain_input.cc).
#pragma once

#include <vector>

#include "io/bytes.h"

namespace underlay {

std::vector<std::byte> image_of_input(ByteSpan input);

}  // namespace underlay
