// list and status: what volumes there are, and how one is doing. They take no lock and change
// nothing.
#pragma once

#include <string>

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

Result<void> list_command(const Host& host);

struct StatusArguments {
  std::string name;
};
Result<void> status_command(const Host& host, const StatusArguments& arguments);

}  // namespace underlay::thin
