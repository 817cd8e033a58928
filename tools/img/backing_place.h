// Where the backing file (-B) of an image that is made is found.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"

namespace underlay::img {

// As open_source() takes it. `target`: the path or the URL of the new image; `backing`: as that one
// names it, from its own folder; `allowed`: --allow-path. kDenied for a name that no image on a
// server can have, or that leads out of its folder there and of what is allowed. Errors begin with
// -B.
Result<std::string> backing_place(const std::string& target, const std::string& backing,
                                  const std::vector<std::string>& allowed);

// kUsage when the new image would take the place of its own backing file, which is at `place`.
Result<void> check_backing_is_kept(const std::string& target, const std::string& place);

}  // namespace underlay::img
