// Carries out the TLS handshake of one client: its arithmetic on workers, its waiting on the ring.
#pragma once

#include <memory>

#include "io/ring.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "server/tls/tls_channel.h"

namespace underlay {

class TlsHandshakeOwner {
 public:
  virtual ~TlsHandshakeOwner() = default;
  virtual void tls_handshake_ended(Result<void> result) = 0;
};

// Belongs to the ring thread, which must let it end before it destroys this.
class TlsHandshake {
 public:
  // All outlive this.
  TlsHandshake(Ring& ring, WorkerPool& workers, TlsHandshakeOwner& owner)
      : ring_(ring), workers_(workers), owner_(owner) {}

  // Calls owner.tls_handshake_ended() once; `channel` and `socket`, its own, live until then. To
  // end it early, shut the socket down. REQUIRES: !running().
  void start(TlsChannel& channel, int socket);
  bool running() const { return running_; }

 private:
  void work();
  void stepped();
  void on_ready(int result);
  void end(Result<void> result);

  Ring& ring_;
  WorkerPool& workers_;
  TlsHandshakeOwner& owner_;
  TlsChannel* channel_ = nullptr;
  int socket_ = -1;
  bool running_ = false;
  Result<TlsChannel::Step> step_ = TlsChannel::Step::kWantsInput;
  MethodTask<&TlsHandshake::work> work_task_{*this};
  MethodTask<&TlsHandshake::stepped> stepped_task_{*this};
  MethodCompletion<&TlsHandshake::on_ready> ready_{*this};
};

}  // namespace underlay
