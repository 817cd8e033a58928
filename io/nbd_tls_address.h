// The address of an export that is reached with TLS: nbds://[USER@]HOST[:PORT]/EXPORT?KEY=VALUE&...
// with libnbd's keys (doc/uri.md of NetworkBlockDevice/nbd).
#pragma once

#include <string>
#include <string_view>

#include "io/error.h"
#include "io/tls_client.h"

namespace underlay {

struct NbdTlsAddress {
  std::string host;  // a name or an IP address
  std::string port;  // digits
  std::string export_name;
  TlsClientOptions tls;
};

// Keys: tls-certificates=FOLDER or tls-psk-file=FILE, which are absolute, because the connection is
// made again by programs that run elsewhere; tls-username, tls-hostname, tls-verify-peer. Pure.
// kUsage for what is no such address, also for keys that are not known.
Result<NbdTlsAddress> parse_nbd_tls_address(std::string_view uri);

}  // namespace underlay
