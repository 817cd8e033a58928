// The files that a disk is read from.
#pragma once

#include <sys/stat.h>

#include "formats/disk.h"

namespace underlay::img {

// Is the file with that status one of them, in any layer, or the archive that one is in?
bool is_file_of(const Disk& disk, const struct stat& status);

}  // namespace underlay::img
