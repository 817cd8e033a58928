// compare --second-opinion: does a library that is not ours read an image as our reader does?
#pragma once

#include "tools/img/command.h"
#include "tools/img/image_argument.h"

namespace underlay::img {

// Tells the first byte that the library of the image's format reads differently. The exit status: 0
// when all bytes are the same, 1 when there is a difference, 2 when the library has nothing to say
// (which is never taken for the same); 3 and 4 as compare's, of our own reader.
Result<int> ask_second_opinion(const Given& given, const ImageArgument& image);

}  // namespace underlay::img
