// underlay-img bench: how fast an image is read.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command bench_command();

}  // namespace underlay::img
