// underlay-img dump: an image's header and tables, field by field.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command dump_command();

}  // namespace underlay::img
