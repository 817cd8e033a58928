// Makes connections to an NBD export that the kernel's client can take over: the handshake is done
// by libnbd (or for TLS, whose keys libnbd keeps to itself, by io/nbd_tls_dial.h), with simple
// replies only, and what comes back is the bare socket.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

struct DialedExport {
  UniqueFd socket;  // in the transmission phase, nothing in flight, nothing read ahead; blocking
  uint64_t size_bytes = 0;
  uint16_t transmission_flags = 0;  // NBD_FLAG_*: HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN, ...
  uint32_t min_block = 1;           // bytes; 1 when the server does not say
};

// `uri`: nbd://host[:port]/export, nbd+unix:///export?socket=PATH, or with TLS
// nbds://host[:port]/export?tls-certificates=FOLDER (see io/nbd_tls_address.h), which the kernel
// then encrypts. Other kinds are refused: TLS over a Unix socket and a kernel without TLS with
// kUnsupported, the rest with kUsage, because the kernel takes TCP and Unix stream sockets only.
// kNotFound when there is no such export or socket. Gives up after `limit`, whatever the server
// does; the look-up of a host's name comes on top. Blocks.
Result<DialedExport> dial_nbd(const std::string& uri, std::chrono::milliseconds limit);

// The same over a socket that is connected to a server already.
Result<DialedExport> dial_nbd_over(UniqueFd connected, const std::string& export_name,
                                   std::chrono::milliseconds limit);

// Loads libnbd now, for a process that may load no libraries later. False when it is not there.
bool load_libnbd();

// The URI of an export of a server on a Unix socket.
std::string nbd_unix_uri(const std::string& socket_path, const std::string& export_name);

}  // namespace underlay
