#include "server/client_registry.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <utility>

namespace underlay {
namespace {

// Without getnameinfo(), which may open files.
std::string address_of(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    sockaddr_in ipv4{};
    std::memcpy(&ipv4, &address, sizeof(ipv4));
    ::inet_ntop(AF_INET, &ipv4.sin_addr, text.data(), text.size());
    return fmt::format("[{}]:{}", text.data(), ntohs(ipv4.sin_port));
  }
  sockaddr_in6 ipv6{};
  std::memcpy(&ipv6, &address, sizeof(ipv6));
  ::inet_ntop(AF_INET6, &ipv6.sin6_addr, text.data(), text.size());
  return fmt::format("[{}]:{}", text.data(), ntohs(ipv6.sin6_port));
}

}  // namespace

PeerName peer_of(int socket) {
  PeerName peer;
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return peer;
  if (address.ss_family == AF_INET || address.ss_family == AF_INET6) {
    peer.address = address_of(address);
    return peer;
  }
  ucred process{};
  length = sizeof(process);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &process, &length) == 0) {
    peer.pid = process.pid;
    peer.uid = process.uid;
  }
  return peer;
}

std::shared_ptr<ConnectedClient> ClientRegistry::enter(PeerName peer,
                                                       const std::string& export_name, bool tls) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<ConnectedClient> client(new ConnectedClient{
      .peer = std::move(peer), .export_name = export_name, .tls = tls, .id = ++last_id_});
  clients_.emplace(client->id, client);
  return client;
}

void ClientRegistry::leave(const ConnectedClient& client) {
  const std::lock_guard lock(mutex_);
  clients_.erase(client.id);
}

std::vector<std::shared_ptr<const ConnectedClient>> ClientRegistry::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<const ConnectedClient>> all;
  for (const auto& [id, client] : clients_) all.push_back(client);
  return all;
}

}  // namespace underlay
