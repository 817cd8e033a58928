// An NBD export as a source.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "io/nbd_connection.h"
#include "io/source.h"

namespace underlay {

// Is it the address of an export, also of a kind that open_nbd_source() refuses with the reason?
inline bool names_nbd_export(std::string_view name) {
  return name.starts_with("nbd://") || name.starts_with("nbd+") || name.starts_with("nbds://") ||
         name.starts_with("nbds+");
}

// `uri`: nbd://host[:port]/export or nbd+unix:///export?socket=PATH, with TLS nbds:// or
// nbds+unix:// and libnbd's ?tls-certificates=FOLDER or ?tls-psk-file=FILE. Other kinds are refused
// (kUsage). kNotFound when there is no such export or socket. Nobody
// can tell here whether the export changes. The look-up of a host's name takes the time it takes.
// Blocks.
Result<std::shared_ptr<const Source>> open_nbd_source(const std::string& uri,
                                                      const NbdLimits& limits = {});

}  // namespace underlay
