#include "server/peer_rules.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace underlay {
namespace {

template <class T>
bool holds(const std::vector<T>& list, T value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// Beside its own group.
Result<std::vector<gid_t>> groups_of_peer(int socket) {
  std::vector<gid_t> groups(32);
  for (;;) {
    auto length = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &length) == 0) {
      groups.resize(length / sizeof(gid_t));
      return groups;
    }
    // The system says how many there are: at most NGROUPS_MAX, 65536.
    if (errno != ERANGE || length <= groups.size() * sizeof(gid_t)) {
      return fail_errno(errno, "cannot learn the groups of a client");
    }
    groups.resize(length / sizeof(gid_t));
  }
}

}  // namespace

Result<void> check_peer(int socket, const PeerRules& rules) {
  if (rules.all_may()) return {};
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    return fail_errno(errno, "cannot learn who a client is");
  }
  if (holds(rules.users, peer.uid) || holds(rules.groups, peer.gid)) return {};
  if (!rules.groups.empty()) {
    for (const gid_t group : TRY(groups_of_peer(socket))) {
      if (holds(rules.groups, group)) return {};
    }
  }
  return fail(ErrorKind::kDenied,
              "process {} of user {} may not connect (--peer-user, --peer-group)", peer.pid,
              peer.uid);
}

}  // namespace underlay
