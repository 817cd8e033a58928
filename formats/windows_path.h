// Paths of Windows hosts, by which images name their parents.
#pragma once

#include <string>
#include <string_view>

namespace underlay {

// A Windows path as a name here: slashes, no ".\" in front, and of a path with a drive letter or a
// server only the last component. "" when nothing is left.
std::string name_of_windows_path(std::string_view path);

}  // namespace underlay
