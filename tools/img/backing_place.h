// Where the backing file (-B) of an image that is made is found.
#pragma once

#include <string>

#include "io/error.h"

namespace underlay::img {

// As open_source() takes it. `target`: the path or the URL of the new image; `backing`: as that one
// names it, from its own folder. kDenied for a name that no image on a server can have. Errors
// begin with -B.
Result<std::string> backing_place(const std::string& target, const std::string& backing);

// kUsage when the new image would take the place of its own backing file.
Result<void> check_backing_is_kept(const std::string& target, const std::string& backing);

}  // namespace underlay::img
