// Places where a test may kill the program to see what it leaves behind.
#pragma once

#include <string_view>

namespace underlay::thin {

// Does nothing in underlay-thin. The tests link a program with another body, which ends the process
// with SIGKILL when the environment variable UNDERLAY_FAULT is `name`.
void fault_point(std::string_view name);

}  // namespace underlay::thin
