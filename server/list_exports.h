// -L: what another NBD server exports, printed as qemu-nbd -L prints it.
#pragma once

#include <ostream>

#include "io/error.h"
#include "server/options.h"

namespace underlay {

// Connects (through libnbd) to the socket or address that the options name, within 10 seconds.
Result<void> list_exports(const Options& options, std::ostream& out);

}  // namespace underlay
