// The sockets that clients connect to.
#pragma once

#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"
#include "server/options.h"

namespace underlay {

struct ListenSocket {
  UniqueFd fd;              // listening, close-on-exec
  bool tcp = false;         // then accepted sockets want TCP_NODELAY
  std::string address;      // for messages: the path, or "[address]:port"
  std::string unlink_path;  // the socket file to remove at the end, "" when it is not ours
};

// What systemd handed over (LISTEN_PID, LISTEN_FDS: sd_listen_fds(3)); empty when nothing. The
// variables are removed from the environment. Fails when a descriptor is no listening stream
// socket, or when `address_given`: two answers to the question where to listen.
Result<std::vector<ListenSocket>> inherited_sockets(bool address_given);

// Opens the socket that the options ask for. A socket file that nobody listens on is replaced; one
// that somebody does listen on, or a file of another kind, is refused. For TCP, every address that
// -b resolves to (IPv4 and IPv6).
Result<std::vector<ListenSocket>> open_listen_sockets(const Options& options);

}  // namespace underlay
