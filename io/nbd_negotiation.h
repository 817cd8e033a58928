// The client's part of an NBD handshake (doc/proto.md of NetworkBlockDevice/nbd, "Newstyle
// negotiation"), as far as it takes to put TLS under it and to hand the socket to the kernel, which
// understands simple replies only: STARTTLS and GO, nothing else. Everything else is libnbd's
// (io/nbd_dial.h), which gives away no keys.
#pragma once

#include <cstdint>
#include <string_view>

#include "io/error.h"
#include "io/timed_socket.h"

namespace underlay {

struct NegotiatedExport {
  uint64_t size_bytes = 0;
  uint16_t transmission_flags = 0;  // NBD_FLAG_*, those of structured replies left out
  uint32_t min_block = 1;           // bytes; 1 when the server does not say
};

// From the server's greeting to its consent to TLS. The next byte on the socket is TLS's. kDenied
// when the server has no TLS: there is no way on in plain text.
Result<void> negotiate_starttls(TimedSocket& socket);

// Chooses the export. Then the socket is in the transmission phase, with nothing read ahead.
// kNotFound when there is no such export. REQUIRES: `name` has at most kMaxExportName bytes.
inline constexpr size_t kMaxExportName = 4096;
Result<NegotiatedExport> negotiate_go(TimedSocket& socket, std::string_view name);

}  // namespace underlay
