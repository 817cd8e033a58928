// What info tells people.
#pragma once

#include <string>

#include "tools/img/image_info.h"

namespace underlay::img {

// qemu-img's lines as it prints them, so that scripts find them, and behind them ours.
std::string info_text(const ImageInfo& info);

}  // namespace underlay::img
