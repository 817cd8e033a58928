// upgrade: another program takes the place of the server that runs, under its clients.
#pragma once

#include <string>

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

struct UpgradeArguments {
  std::string image;  // path, id or device; "" = all that have a server
};
// The connections are handed over where both programs can do that; else the new server starts
// beside the old one, which then ends, and new connections are made: a pause of up to the recovery
// timeout. When the new program cannot serve the image, the old one goes on. Prints the
// milliseconds that it took.
Result<void> upgrade_command(const Host& host, const UpgradeArguments& arguments);

}  // namespace underlay::thin
