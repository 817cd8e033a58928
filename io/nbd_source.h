// An NBD export as a source.
#pragma once

#include <memory>
#include <string>

#include "io/nbd_connection.h"
#include "io/source.h"

namespace underlay {

// `uri`: nbd://host[:port]/export or nbd+unix:///export?socket=PATH, with TLS nbds:// or
// nbds+unix:// and libnbd's ?tls-certificates=FOLDER or ?tls-psk-file=FILE. Other kinds are refused
// (kUsage). kNotFound when there is no such export or socket. Nobody
// can tell here whether the export changes. The look-up of a host's name takes the time it takes.
// Blocks.
Result<std::shared_ptr<const Source>> open_nbd_source(const std::string& uri,
                                                      const NbdLimits& limits = {});

}  // namespace underlay
