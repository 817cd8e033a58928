// Makes connections to an NBD export with TLS that the kernel's client can take over: it hands
// plain bytes to the socket, and the kernel's TLS encrypts them.
#pragma once

#include <chrono>
#include <string>

#include "io/error.h"
#include "io/nbd_dial.h"

namespace underlay {

// dial_nbd() of an nbds:// address: see io/nbd_tls_address.h. kUnsupported, saying what to do, when
// the kernel has no TLS.
Result<DialedExport> dial_nbd_tls(const std::string& uri, std::chrono::milliseconds limit);

}  // namespace underlay
