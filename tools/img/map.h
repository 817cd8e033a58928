// underlay-img map: what lies where, as a table, as JSON, or as a picture.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command map_command();

}  // namespace underlay::img
