// underlay-img info: what an image says of itself.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command info_command();

}  // namespace underlay::img
