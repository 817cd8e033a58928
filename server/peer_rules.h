// Which users may connect to the server's Unix sockets.
#pragma once

#include <sys/types.h>

#include <vector>

#include "io/error.h"

namespace underlay {

struct PeerRules {
  std::vector<uid_t> users;
  std::vector<gid_t> groups;  // the peer's own, or one that it is in

  bool all_may() const { return users.empty() && groups.empty(); }
};

// Fails with kDenied, naming the peer, when `rules` do not let it in; also when the system does not
// say who it is. `socket`: a connected Unix socket.
Result<void> check_peer(int socket, const PeerRules& rules);

}  // namespace underlay
