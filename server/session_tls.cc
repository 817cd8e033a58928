// A session whose client has asked for TLS: the handshake, then plain bytes through the channel.
#include <cassert>
#include <cerrno>

#include "server/session.h"

namespace underlay {

// Until it is there, not a byte of the client's is taken.
bool Session::waits_for_tls() const {
  return phase_ == Phase::kHandshake && handshake_.need() == Handshake::Need::kTls;
}

void Session::begin_tls() {
  if (!waits_for_tls() || tls_ || queue_.unsent() > 0) return;
  assert(!receiving_);
  if (!input().empty()) {
    // Somebody in between may have put it there, and the client would not know.
    host_.log().warn("a client said more in plain text after NBD_OPT_STARTTLS: connection closed",
                     log_fields());
    return close();
  }
  auto channel = TlsChannel::create(host_.tls_credentials(), socket_.get());
  if (!channel) {
    host_.log().error(channel.error().to_string(), log_fields().error(channel.error()));
    return close();
  }
  tls_ = *std::move(channel);
  tls_handshake_.start(*tls_, socket_.get());
}

void Session::tls_handshake_ended(Result<void> result) {
  if (!result && phase_ != Phase::kClosed) {
    host_.log().warn(result.error().to_string() + ": connection closed",
                     log_fields().error(result.error()));
    close();
  }
  if (phase_ == Phase::kHandshake) handshake_.encrypted();
  schedule_pump();
}

void Session::receive_encrypted(MutableByteSpan room) {
  const int64_t got = tls_->receive(room);
  if (got == -EAGAIN && !shutting_down_) {
    receiving_ = true;
    ++outstanding_;
    return host_.ring().wait_readable(socket_.get(), readable_);
  }
  if (got > 0) {
    heard_ = true;
    received_at_ = std::chrono::steady_clock::now();
    input_end_ += static_cast<size_t>(got);
  } else if (got == 0 || shutting_down_) {
    input_ended_ = true;
    if (phase_ == Phase::kHandshake) close();
  } else {
    host_.log().detail("a client broke the rules of TLS: connection closed", log_fields());
    close();
  }
  schedule_pump();
}

int64_t Session::send_encrypted() {
  queue_.prepare(message_);
  return tls_->send(message_, host_.buffers());
}

}  // namespace underlay
