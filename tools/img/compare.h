// underlay-img compare: do two images show the same to a guest?
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command compare_command();

}  // namespace underlay::img
