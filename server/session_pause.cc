// A session between two processes: pausing here, going on there.
#include <algorithm>
#include <cassert>

#include "server/session.h"

namespace underlay {

void Session::pause() {
  assert(!in_handshake() && pause_ == Pause::kNo);
  // Keys and sequence numbers of an encrypted connection stay within GnuTLS.
  if (tls_) return host_.session_stays(*this);
  const auto now = std::chrono::steady_clock::now();
  // Nobody shall have to wait for a client that does not read.
  if (sending_ && now - last_sent_ >= limits::kHandoverPause) return host_.session_stays(*this);
  pause_ = Pause::kWanted;
  stop_receiving();
  read_ahead_.stop();
  schedule_pump();
}

// Is the session still? Then it stays so: it neither receives nor is anything under way.
void Session::settle_pause() {
  if (pause_ != Pause::kWanted) return;
  if (phase_ != Phase::kTransmission || input_ended_) {
    resume();
    return host_.session_stays(*this);
  }
  if (receiving_ || sending_ || read_ahead_.running() || !all_is_answered()) return;
  // Timers look whether the client has left: none may find out once the socket is on its way.
  if (hold_timer_armed_) return host_.ring().cancel(hold_timer_);
  if (throttled_) return host_.ring().cancel(admission_);
  if (!held_can_be_handed_over()) {
    resume();
    return host_.session_stays(*this);
  }
  pause_ = Pause::kReached;
  host_.session_paused(*this);
}

// Are they a part of what the client has said? Not with a payload behind them.
bool Session::held_can_be_handed_over() const {
  const size_t bytes = held_.size() * request_bytes(handshake_.negotiated());
  return held_.empty() ||
         (payload_left_ == 0 && bytes + input().size() <= limits::kReceiveBuffer);
}

void Session::resume() {
  if (pause_ == Pause::kNo) return;
  pause_ = Pause::kNo;
  schedule_pump();
}

SessionState Session::state() const {
  assert(pause_ == Pause::kReached);
  WireBuffer said;
  held_.for_each([&](const Request& request) {
    put_request(said, request, handshake_.negotiated());
  });
  said.put_text(as_text(input()));
  return {.content = export_->content(),
          .negotiated = handshake_.negotiated(),
          .input = {said.bytes().begin(), said.bytes().end()},
          .payload_left = payload_left_,
          .payload_request = payload_request_,
          .payload_error = payload_error_};
}

void Session::hand_over() {
  assert(pause_ == Pause::kReached);
  phase_ = Phase::kClosed;
  drop_held();
  socket_.reset();  // without shutdown(), which would end it for the other process, too
  schedule_pump();
}

void Session::adopt(SessionState state, std::shared_ptr<Export> exported) {
  assert(state.input.size() <= limits::kReceiveBuffer);
  handshake_.adopt(state.negotiated);
  phase_ = Phase::kTransmission;
  was_negotiated_ = true;
  export_ = std::move(exported);
  received_at_ = std::chrono::steady_clock::now();
  begin_metrics();
  payload_left_ = state.payload_left;
  payload_request_ = state.payload_request;
  payload_request_.received = received_at_;
  payload_error_ = state.payload_error;
  schedule_pump();
  // Without bytes of the client's it begins at rest.
  if (state.input.empty() || !wake_up()) return;
  std::copy(state.input.begin(), state.input.end(), receive_buffer_.get());
  input_end_ = state.input.size();
}

}  // namespace underlay
