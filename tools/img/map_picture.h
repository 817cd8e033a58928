// A picture of a disk: a grid of cells in reading order, with a colour for each image of the chain.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "formats/disk.h"
#include "tools/common/progress.h"
#include "tools/img/canvas.h"

namespace underlay::img {

// What --output=NAME means; nullopt when it is no picture.
std::optional<PictureFormat> picture_format(std::string_view name);

// A PNG is not for a terminal.
Result<void> check_picture_output(PictureFormat format);

// Draws [start, end) of the disk, to standard output. Memory is bounded, whatever the disk is.
Result<void> print_picture(const Disk& disk, uint64_t start, uint64_t end, PictureFormat format,
                           Progress& progress);

}  // namespace underlay::img
