// underlay-nbd ctl: asks a running server something, through its control socket.
#pragma once

#include <string>
#include <vector>

namespace underlay {

// `arguments`: behind `ctl`. The exit status of the program.
int run_control_client(const std::vector<std::string>& arguments);

}  // namespace underlay
