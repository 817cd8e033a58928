// The connection itself: receiving, the handshake, the end. What requests do is in
// session_requests.cc, sending in session_send.cc, pausing in session_pause.cc, resting in
// session_rest.cc.
#include "server/session.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "server/reply_memory.h"

namespace underlay {

Session::Session(SessionHost& host, UniqueFd socket)
    : host_(host),
      socket_(std::move(socket)),
      handshake_(host.offer()),
      lookup_(host.ring(), host.workers(), host.catalog(), *this),
      tls_handshake_(host.ring(), host.workers(), *this),
      queue_(host.buffers()),
      read_ahead_(host.ring(), host.workers(), *this),
      held_(host.on_error()) {
  prepare_socket();
}

void Session::start() {
  arm_deadline();
  handshake_.greet(handshake_out_);
  send_handshake();
  schedule_pump();
}

void Session::arm_deadline() {
  ++outstanding_;
  deadline_armed_ = true;
  host_.ring().timeout(limits::kHandshakeTime, deadline_time_, deadline_);
}

void Session::schedule_pump() {
  if (pump_scheduled_) return;
  pump_scheduled_ = true;
  ++outstanding_;
  host_.ring().defer(pump_task_);
}

void Session::pump() {
  pump_scheduled_ = false;
  --outstanding_;
  if (phase_ != Phase::kClosed) {
    turn_left_ = limits::kSendBytes;
    reply_finished();
    request_waits_ = false;
    start_held();
    while (!blocked() && consume_input()) {
      // Let the client work on these replies while the next are made.
      if (queue_.unsent() >= limits::kSendThreshold) flush();
    }
    if (input_ended_ && !blocked() && !request_waits_) phase_ = Phase::kDraining;
    const bool held_up = blocked();
    flush();
    begin_tls();
    if (held_up && !blocked()) schedule_pump();  // there may be requests left in the input
    receive_more();
    if (phase_ == Phase::kDraining && nothing_under_way()) close();
  }
  publish_metrics();
  settle_pause();
  end_if_idle();
}

// All that was begun, but for what is held?
bool Session::all_is_answered() const {
  return operations_ == 0 && finished_reads_.empty() && finished_operations_.empty() &&
         queue_.unsent() == 0;
}

bool Session::nothing_under_way() const { return all_is_answered() && held_.empty(); }

// Whatever the client says next has to wait.
bool Session::blocked() const {
  return phase_ == Phase::kDraining || phase_ == Phase::kClosed || memory_wanted_ ||
         pause_ != Pause::kNo || lookup_.running() || waits_for_tls() || throttled_ ||
         operations_ + held_.size() >= limits::kOperations ||
         (queue_.unsent() > 0 &&
          queue_.unsent() >= share_of_reply_memory(limits::kUnsentBytes, host_.buffers()));
}

bool Session::consume_input() {
  return phase_ == Phase::kHandshake ? consume_handshake() : consume_transmission();
}

void Session::receive_more() {
  if (receiving_ || input_ended_ || blocked()) return;
  // What is left is less than one request, or one that must wait: then the buffer may be full.
  const size_t left = input_end_ - input_begin_;
  if (left == limits::kReceiveBuffer) return;
  if (receive_buffer_ == nullptr && !shutting_down_) {
    receiving_ = true;
    ++outstanding_;
    return host_.ring().wait_readable(socket_.get(), readable_);
  }
  if (receive_buffer_ == nullptr && !wake_up()) return;
  std::memmove(receive_buffer_.get(), receive_buffer_.get() + input_begin_, left);
  input_begin_ = 0;
  input_end_ = left;
  const MutableByteSpan room(receive_buffer_.get() + left, limits::kReceiveBuffer - left);
  if (tls_) return receive_encrypted(room);
  if (shutting_down_) {
    // Only what the client has sent already is still answered.
    const ssize_t got = ::recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
    if (got <= 0) {
      input_ended_ = true;
    } else {
      received_at_ = std::chrono::steady_clock::now();
      input_end_ += static_cast<size_t>(got);
    }
    return schedule_pump();
  }
  receiving_ = true;
  ++outstanding_;
  host_.ring().receive(socket_.get(), room, received_);
}

void Session::on_received(int result) {
  receiving_ = false;
  --outstanding_;
  if (result > 0) {
    heard_ = true;
    received_at_ = std::chrono::steady_clock::now();
    input_end_ += static_cast<size_t>(result);
  } else if (result == 0) {
    // The client will not say more. It may still read what it has asked for.
    input_ended_ = true;
    if (phase_ == Phase::kHandshake) close();
  } else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
    close();
  }
  rest();
  schedule_pump();
}

void Session::on_deadline(int) {
  deadline_armed_ = false;
  --outstanding_;
  if (phase_ == Phase::kHandshake && lookup_.running()) {
    // The client is not to blame for the time that opening its image takes.
    arm_deadline();
  } else if (phase_ == Phase::kHandshake) {
    host_.log().detail("a client did not finish the handshake in time: connection closed",
                       log_fields());
    close();
  }
  schedule_pump();
}

void Session::memory_wanted() {
  if (memory_wanted_) return;
  memory_wanted_ = true;
  host_.memory_is_short();
  ++outstanding_;
  host_.ring().timeout(limits::kMemoryRetry, retry_time_, retry_);
}

void Session::on_retry(int) {
  memory_wanted_ = false;
  --outstanding_;
  schedule_pump();
}

void Session::close_if_unread(std::chrono::steady_clock::time_point now) {
  if (!sending_ || now - last_sent_ < limits::kUnreadTime) return;
  host_.log().warn("a client does not read its replies and memory is short: connection closed",
                   log_fields());
  close();
}

void Session::shut_down() {
  shutting_down_ = true;
  if (phase_ == Phase::kHandshake) return close();
  stop_receiving();
  schedule_pump();
}

void Session::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  read_ahead_.stop();
  drop_held();
  if (tls_ && !tls_handshake_.running()) tls_->say_goodbye();
  // Ends what is being sent and received; both complete as usual.
  ::shutdown(socket_.get(), SHUT_RDWR);
  if (deadline_armed_) host_.ring().cancel(deadline_);
  if (throttled_) host_.ring().cancel(admission_);
  schedule_pump();
}

void Session::end_if_idle() {
  if (phase_ != Phase::kClosed || outstanding_ > 0 || operations_ > 0 || lookup_.running()) return;
  if (read_ahead_.running() || tls_handshake_.running()) return;
  end_metrics();
  host_.session_ended(*this);
}

bool Session::consume_handshake() {
  if (input().empty()) return false;
  input_begin_ += handshake_.feed(input(), handshake_out_);
  send_handshake();
  meet_need();
  return phase_ != Phase::kClosed;
}

void Session::send_handshake() {
  ByteSpan rest = handshake_out_.bytes();
  while (!rest.empty()) {
    const size_t part = std::min(rest.size(), limits::kBatchBuffer);
    const MutableByteSpan room = queue_.reserve(part);
    // A client that cannot even be greeted is turned away; it may come back.
    if (room.empty()) {
      host_.memory_is_short();
      host_.log().warn("no reply memory is left for a handshake: connection closed", log_fields());
      return close();
    }
    std::memcpy(room.data(), rest.data(), part);
    queue_.commit(part);
    rest = rest.subspan(part);
  }
  handshake_out_.clear();
}

void Session::meet_need() {
  if (phase_ == Phase::kClosed) return;
  switch (handshake_.need()) {
    case Handshake::Need::kInput:
    case Handshake::Need::kTls:  // begin_tls(), once the answer has been sent
      return;
    case Handshake::Need::kExport:
      return lookup_.find(handshake_.wanted_export());
    case Handshake::Need::kExportList:
      return lookup_.list();
    case Handshake::Need::kDone:
      phase_ = Phase::kTransmission;
      was_negotiated_ = true;
      begin_metrics();
      if (deadline_armed_) host_.ring().cancel(deadline_);
      host_.handshake_ended();
      return;
    case Handshake::Need::kClose:
      // What was written still goes out.
      if (phase_ == Phase::kHandshake) {
        phase_ = Phase::kDraining;
        host_.handshake_ended();
      }
      return;
  }
}

void Session::lookup_done() {
  if (phase_ == Phase::kHandshake) {
    if (handshake_.need() == Handshake::Need::kExportList) {
      handshake_.exports_listed(lookup_.take_listed(), handshake_out_);
    } else if (lookup_.found()) {
      take_export(*lookup_.found());
    } else {
      const bool unknown = lookup_.found().error().kind == ErrorKind::kNotFound;
      handshake_.export_missing(unknown, handshake_out_);
    }
    send_handshake();
    meet_need();
  }
  schedule_pump();
}

}  // namespace underlay
