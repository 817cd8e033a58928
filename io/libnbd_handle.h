// A handle of libnbd, and how it is brought into a connection: what all our clients share.
#pragma once

#include <libnbd.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

// Closing sends no NBD_CMD_DISC.
struct CloseLibnbd {
  void operator()(nbd_handle* handle) const { ::nbd_close(handle); }
};
using LibnbdHandle = std::unique_ptr<nbd_handle, CloseLibnbd>;

// What libnbd says of the call that this thread made last: "DOING: REASON". kNotFound when there is
// no such socket or export.
Failure libnbd_failure(std::string_view doing);

// Begins to connect to nbd:// or nbd+unix://, or with TLS to nbds:// or nbds+unix://, and never by
// what else a URI might make libnbd do: run commands, or, without TLS, read files.
Result<void> begin_connecting(nbd_handle* handle, const std::string& uri);

// Runs the handshake to its end. Gives up after `limit`, whatever the server does. Blocks.
Result<void> finish_connecting(nbd_handle* handle, std::chrono::milliseconds limit);

}  // namespace underlay
