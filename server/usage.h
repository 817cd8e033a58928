// What -h and -V print.
#pragma once

#include <string>

namespace underlay {

std::string usage_text();    // lines of at most 100 columns
std::string version_text();  // one line

}  // namespace underlay
