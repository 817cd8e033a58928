// underlay-img audit: may this image be served?
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command audit_command();

}  // namespace underlay::img
