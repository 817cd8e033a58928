// A session whose client is silent: it gives its memory back, and waits for the client to speak.
#include <cerrno>
#include <utility>

#include "server/session.h"

namespace underlay {

bool Session::rest_if_silent() {
  if (receive_buffer_ == nullptr) return false;
  const bool spoke = std::exchange(heard_, false);
  const bool silent = phase_ == Phase::kTransmission && receiving_ && nothing_under_way() &&
                      input().empty() && !shutting_down_;
  if (spoke || !silent) return true;
  // What arrives before that is done wakes it up again: on_received().
  resting_ = true;
  stop_receiving();
  return true;
}

// The receive has ended. Did nothing come in between?
void Session::rest() {
  if (!std::exchange(resting_, false)) return;
  if (receiving_ || !nothing_under_way() || !input().empty()) return;
  receive_buffer_.reset();
  read_ahead_.stop();  // its share of the cache is for those who read
  queue_.release_memory();
  if (tls_) tls_->release_memory();
  input_begin_ = input_end_ = 0;
  (void)std::exchange(free_reads_, {});
  (void)std::exchange(reads_, {});
  (void)std::exchange(finished_reads_, {});
  (void)std::exchange(finished_operations_, {});
}

// Memory to receive into. Without any, the connection ends.
bool Session::wake_up() {
  receive_buffer_ = host_.receive_buffers().take();
  if (receive_buffer_ == nullptr) {
    host_.log().error("no memory is left to receive from a client: connection closed",
                      log_fields());
    close();
    return false;
  }
  heard_ = true;
  host_.session_awake();
  return true;
}

void Session::on_readable(int result) {
  receiving_ = false;
  --outstanding_;
  if (phase_ != Phase::kClosed) {
    if (result >= 0) {
      if (receive_buffer_ == nullptr) (void)wake_up();
    } else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
      close();
    }
    rest();
  }
  schedule_pump();
}

void Session::stop_receiving() {
  if (!receiving_) return;
  if (receive_buffer_ != nullptr && !tls_) {
    host_.ring().cancel(received_);
  } else {
    host_.ring().cancel(readable_);
  }
}

}  // namespace underlay
