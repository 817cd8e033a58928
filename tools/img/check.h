// underlay-img check: is an image whole?
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command check_command();

}  // namespace underlay::img
