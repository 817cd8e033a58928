// What the rule of an export (--export-rule) means for a session.
#include <poll.h>

#include <algorithm>

#include "server/session.h"

namespace underlay {

// The export that was looked up, unless its rule keeps it from this client.
void Session::take_export(const std::shared_ptr<Export>& found) {
  const ExportRule& rule = found->rule();
  if (const auto access = rule.check_access(socket_.get()); !access) {
    host_.log().detail(
        fmt::format("export \"{}\": {}", printable(found->name(), 80), access.error().message),
        log_fields().exported(found->name()));
    return handshake_.export_forbidden("this export is not for you", handshake_out_);
  }
  const bool enters = handshake_.wants_transmission();
  if (enters && !found->metrics().enter(rule.clients)) {
    host_.log().detail(fmt::format("export \"{}\": {} clients are as many as its rule allows",
                                   printable(found->name(), 80), rule.clients),
                       log_fields().exported(found->name()));
    return handshake_.export_forbidden("this export has as many clients as it may have",
                                       handshake_out_);
  }
  export_ = found;
  handshake_.export_found(export_->describe(), handshake_out_);
  entered_ = enters && handshake_.need() == Handshake::Need::kDone;
  if (enters && !entered_) export_->metrics().leave();  // it lacks TLS
}

// May the request at the front of the input begin? If not, nothing more is read from the client
// until it may.
bool Session::admit(const Request& request) {
  RateLimit& limit = export_->rate_limit();
  if (admitted_ || !limit.is_limited()) return true;
  const uint64_t bytes = request.command == nbd::Command::kRead ? request.length : 0;
  const auto wait = limit.take(bytes, RateLimit::Clock::now());
  if (wait == RateLimit::Clock::duration::zero()) return admitted_ = true;
  using std::chrono::milliseconds;
  throttled_ = true;
  ++outstanding_;
  // Not for long at once: nothing is received meanwhile, and the client may leave.
  host_.ring().timeout(
      std::clamp(std::chrono::ceil<milliseconds>(wait), milliseconds(1), limits::kAdmissionLook),
      admission_time_, admission_);
  return false;
}

void Session::on_admission(int) {
  throttled_ = false;
  --outstanding_;
  pollfd peer{.fd = socket_.get(), .events = 0, .revents = 0};
  if (phase_ != Phase::kClosed && ::poll(&peer, 1, 0) > 0) close();  // it has left
  schedule_pump();
}

}  // namespace underlay
