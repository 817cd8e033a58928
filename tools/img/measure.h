// underlay-img measure: how large an image file will be, before it is made.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command measure_command();

}  // namespace underlay::img
