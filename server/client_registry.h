// Who uses the exports of a server at this moment.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace underlay {

// The other end of a connection.
struct PeerName {
  std::string address;  // "[address]:port"; "" for a Unix socket, whose process is known instead
  pid_t pid = 0;        // 0 when it lives in another namespace
  uid_t uid = 0;
};

// What the system says of whoever is connected to `socket`.
PeerName peer_of(int socket);

// One connection in transmission. Thread-safe.
struct ConnectedClient {
  const PeerName peer;
  const std::string export_name;
  const bool tls = false;
  const uint64_t id = 0;  // no other has had it
  const std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  std::atomic<uint64_t> reads = 0;
  std::atomic<uint64_t> read_bytes = 0;
};

// Thread-safe.
class ClientRegistry {
 public:
  std::shared_ptr<ConnectedClient> enter(PeerName peer, const std::string& export_name, bool tls);
  void leave(const ConnectedClient& client);
  // In the order in which they came.
  std::vector<std::shared_ptr<const ConnectedClient>> list() const;

 private:
  mutable std::mutex mutex_;
  uint64_t last_id_ = 0;                                          // under mutex_
  std::map<uint64_t, std::shared_ptr<ConnectedClient>> clients_;  // under mutex_
};

}  // namespace underlay
