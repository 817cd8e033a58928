// What is counted of the server as a whole.
#pragma once

#include <atomic>
#include <cstdint>

namespace underlay {

// Thread-safe.
struct ServerMetrics {
  std::atomic<unsigned> clients = 0;   // connected now
  std::atomic<uint64_t> accepted = 0;  // that ever connected
  std::atomic<uint64_t> refused = 0;   // by --peer-user and the like
};

}  // namespace underlay
