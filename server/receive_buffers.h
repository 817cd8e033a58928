// Memory that the sessions of a thread receive into, each while its client speaks.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace underlay {

// Belongs to one thread. What is given back leaves the process, but for a few that are kept: so a
// thousand silent clients cost nothing here, and busy ones no system call.
class ReceiveBuffers {
 public:
  struct GiveBack {
    void operator()(std::byte* memory) const { pool->release(memory); }
    ReceiveBuffers* pool = nullptr;
  };
  // limits::kReceiveBuffer bytes. The pool outlives it.
  using Memory = std::unique_ptr<std::byte[], GiveBack>;

  ReceiveBuffers() = default;
  ~ReceiveBuffers();
  ReceiveBuffers(const ReceiveBuffers&) = delete;
  ReceiveBuffers& operator=(const ReceiveBuffers&) = delete;

  // Uninitialised. Null when the system has no memory.
  Memory take();

 private:
  void release(std::byte* memory);

  std::vector<std::byte*> kept_;
};

}  // namespace underlay
