// Requests of a session whose reads failed: tried again, as HeldRequests says.
#include <poll.h>

#include "server/session.h"

namespace underlay {

// Will the client hear of nothing more? Then nothing is held for long.
bool Session::leaving() const {
  return phase_ != Phase::kTransmission || input_ended_ || peer_ended_;
}

// The server ends: under kHold, what is held is never answered, because whoever connects to the
// next server may ask again, but an error would be for good.
bool Session::ends_unanswered() const {
  return shutting_down_ && host_.on_error() == OnError::kHold;
}

// False when the failure is to be answered.
bool Session::hold(const Request& request, const Error& error) {
  if (phase_ == Phase::kClosed) return false;
  if (ends_unanswered() && HeldRequests::may_pass(error)) {
    if (request.tries > 0) (void)export_->faults().release();
    return true;
  }
  if (!held_.hold(request, error, leaving(), HeldRequests::Clock::now())) return false;
  note_held(request, error.to_string(), log_fields().request(request).error(error));
  return true;
}

// Of an export whose image has changed. False when it is to be answered.
bool Session::hold_of_changed(const Request& request) {
  if (!held_.hold_for_good(request, leaving(), HeldRequests::Clock::now())) return false;
  note_held(request, "the image has changed", log_fields().request(request));
  return true;
}

void Session::note_held(const Request& request, std::string_view why, const LogFields& fields) {
  if (export_->faults().hold(request.tries == 0)) {
    const bool bounded = host_.on_error() == OnError::kEio;
    host_.log().warn(
        fmt::format("export \"{}\": {} bytes at offset {}: {}; {}", printable(export_->name(), 80),
                    request.length, request.offset, why,
                    bounded ? fmt::format("it is tried again, at most {} times", limits::kRetries)
                            : "the request is held until it can be answered (--on-error=hold)"),
        fields);
  }
  arm_hold_timer();
}

// A request is done with that may have been held before.
void Session::end_hold(const Request& request, bool succeeded) {
  if (!succeeded) export_->faults().fail();
  if (request.tries == 0 || !export_->faults().release() || !succeeded) return;
  const ReadFaults::Counts counts = export_->faults().counts();
  host_.log().warn(fmt::format("export \"{}\": reads succeed again; until now {} tries were "
                               "repeated, {} requests failed",
                               printable(export_->name(), 80), counts.retried, counts.failed),
                   EntryFields().exported(export_->name()));
}

// Starts those whose time has come, as far as there is room for them.
void Session::start_held() {
  if (ends_unanswered()) drop_held();
  if (held_.empty() || pause_ != Pause::kNo) return;
  const auto now = HeldRequests::Clock::now();
  if (leaving()) held_.make_due(now);
  while (operations_ < limits::kOperations && !memory_wanted_) {
    const auto request = held_.take_due(now);
    if (!request) break;
    if (!start_request(*request)) {
      held_.give_back(*request, now);
      break;
    }
  }
  arm_hold_timer();
}

void Session::drop_held() {
  for (size_t i = 0; i < held_.size(); ++i) (void)export_->faults().release();
  held_.clear();
  if (hold_timer_armed_) host_.ring().cancel(hold_timer_);
}

void Session::arm_hold_timer() {
  if (held_.empty() || phase_ == Phase::kClosed) return;
  const auto due = held_.next_due();
  if (hold_timer_armed_) {
    // It completes early then, and is armed anew.
    if (due < hold_timer_due_) host_.ring().cancel(hold_timer_);
    return;
  }
  using std::chrono::milliseconds;
  const auto wait = std::chrono::ceil<milliseconds>(due - HeldRequests::Clock::now());
  hold_timer_armed_ = true;
  hold_timer_due_ = due;
  ++outstanding_;
  host_.ring().timeout(std::max(wait, milliseconds(1)), hold_time_, hold_timer_);
}

void Session::on_hold_timer(int) {
  hold_timer_armed_ = false;
  --outstanding_;
  // Nothing is received while all of a client's requests are held: its end would not be noticed.
  pollfd peer{.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  if (phase_ != Phase::kClosed && ::poll(&peer, 1, 0) > 0) {
    if ((peer.revents & (POLLHUP | POLLERR)) != 0) close();
    if ((peer.revents & POLLRDHUP) != 0 && blocked()) peer_ended_ = true;
  }
  schedule_pump();
}

}  // namespace underlay
