// underlay-img digest: checksums of what a guest sees, in one number or as a tree.
#pragma once

#include "tools/img/command.h"

namespace underlay::img {

Command digest_command();

}  // namespace underlay::img
