// underlay-img convert: writes the disk of an image as another image.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command convert_command();

}  // namespace underlay::img
