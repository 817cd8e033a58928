// How large a qcow2 file will be.
#pragma once

#include "tools/img/image_size.h"

namespace underlay::img {

Result<ImageSize> qcow2_size(const std::vector<std::string>& options, const DiskToStore& disk);

}  // namespace underlay::img
