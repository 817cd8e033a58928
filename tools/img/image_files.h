// The files that a disk is read from.
#pragma once

#include <sys/stat.h>

#include <string>

#include "formats/disk.h"

namespace underlay::img {

// Is the file or device with that status one of them, in any layer, or the archive that one is in?
bool is_file_of(const Disk& disk, const struct stat& status);

// Where a symbolic link leads to, also when nothing is there yet: the link itself is not what is to
// be replaced. Others stay as they are.
std::string without_links(const std::string& path);

// Fails when `target`, a path or a URL, is the file that `source` reads: it is not replaced.
Result<void> check_is_no_file_of(const std::string& target, const Source& source);
// The same of all files of a disk.
Result<void> check_is_no_file_of(const std::string& target, const Disk& disk);

// May what is made of `source` take the place of the file `path`? Fails when that is one of its
// files, no regular file, or open as an image for somebody else. What does not exist may. Follows
// links; never waits.
Result<void> check_may_be_replaced(const std::string& path, const Disk& source);

}  // namespace underlay::img
