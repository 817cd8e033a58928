#include "server/tls/tls_handshake.h"

#include <cassert>
#include <utility>

namespace underlay {

void TlsHandshake::start(TlsChannel& channel, int socket) {
  assert(!running_);
  channel_ = &channel;
  socket_ = socket;
  running_ = true;
  // The client speaks first.
  ring_.wait_readable(socket_, ready_);
}

void TlsHandshake::on_ready(int result) {
  if (result < 0) return end(fail_errno(-result, "the TLS handshake was broken off"));
  workers_.submit(work_task_, Urgency::kArrival);
}

void TlsHandshake::work() {
  step_ = without_exceptions([&] { return channel_->handshake(); });
  ring_.post(stepped_task_);
}

void TlsHandshake::stepped() {
  if (!step_) return end(Failure(std::move(step_).error()));
  switch (*step_) {
    case TlsChannel::Step::kDone:
      return end({});
    case TlsChannel::Step::kWantsInput:
      return ring_.wait_readable(socket_, ready_);
    case TlsChannel::Step::kWantsOutput:
      return ring_.wait_writable(socket_, ready_);
  }
}

void TlsHandshake::end(Result<void> result) {
  running_ = false;
  owner_.tls_handshake_ended(std::move(result));
}

}  // namespace underlay
