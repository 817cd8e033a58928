#include "server/held_requests.h"

#include <algorithm>

#include "server/limits.h"

namespace underlay {
namespace {

// Longer and longer, but not so long that a guest would be kept waiting by it.
std::chrono::milliseconds delay_before(unsigned tries) {
  constexpr unsigned kDoublings = 16;
  return std::min(limits::kRetryFirst * (1u << std::min(2 * (tries - 1), kDoublings)),
                  limits::kRetryLongest);
}

}  // namespace

bool HeldRequests::may_pass(const Error& error) {
  return error.kind == ErrorKind::kIo || error.kind == ErrorKind::kTruncated;
}

bool HeldRequests::hold(const Request& request, const Error& error, bool leaving,
                        Clock::time_point now) {
  if (!may_pass(error)) return false;
  const bool without_end =
      policy_ == OnError::kHold && !leaving && error.kind != ErrorKind::kTruncated;
  if (error.kind == ErrorKind::kTruncated && policy_ == OnError::kEio) return false;
  if (!without_end && request.tries >= limits::kRetries) return false;
  keep(request, now);
  return true;
}

bool HeldRequests::hold_for_good(const Request& request, bool leaving, Clock::time_point now) {
  if (policy_ != OnError::kHold || leaving) return false;
  keep(request, now);
  return true;
}

void HeldRequests::keep(Request request, Clock::time_point now) {
  if (request.tries < UINT8_MAX) ++request.tries;
  held_.push_back({request, now + delay_before(request.tries)});
}

std::optional<Request> HeldRequests::take_due(Clock::time_point now) {
  const auto due =
      std::find_if(held_.begin(), held_.end(), [&](const Held& held) { return held.due <= now; });
  if (due == held_.end()) return std::nullopt;
  const Request request = due->request;
  held_.erase(due);
  return request;
}

HeldRequests::Clock::time_point HeldRequests::next_due() const {
  return std::min_element(held_.begin(), held_.end(),
                          [](const Held& a, const Held& b) { return a.due < b.due; })
      ->due;
}

void HeldRequests::make_due(Clock::time_point now) {
  for (Held& held : held_) held.due = std::min(held.due, now);
}

}  // namespace underlay
