// Requests whose reads failed for a reason that may pass. They are tried again before the client
// hears of it: a kernel turns any error of NBD into an error of the guest's disk, at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "io/error.h"
#include "server/request.h"

namespace underlay {

enum class OnError : uint8_t {
  kEio,   // a request is tried again limits::kRetries times, then answered with EIO
  kHold,  // it is tried again until that succeeds, or its client leaves
};

// Those of one connection; at most limits::kOperations, since each has been one. All methods belong
// to the ring thread.
class HeldRequests {
 public:
  using Clock = std::chrono::steady_clock;

  explicit HeldRequests(OnError policy) : policy_(policy) {}

  // May what failed so succeed later? The system failed (EIO, ESTALE, no memory); or the file was
  // shorter than it must be, which is a change that will be noticed, or damage that lasts.
  static bool may_pass(const Error& error);

  // Keeps a request that failed so for a later try. False when it must be answered now: the reason
  // does not pass, or it was tried often enough. Nothing is held longer than under kEio for a
  // client that is `leaving`.
  bool hold(const Request& request, const Error& error, bool leaving, Clock::time_point now);
  // Keeps a request that cannot succeed before something changes, under kHold; else false.
  bool hold_for_good(const Request& request, bool leaving, Clock::time_point now);

  // Takes a request whose time has come; nullopt when there is none.
  std::optional<Request> take_due(Clock::time_point now);
  // When the next one's time comes. REQUIRES: !empty().
  Clock::time_point next_due() const;
  // Gives a taken one back, unchanged: it could not be started.
  void give_back(const Request& request, Clock::time_point now) { held_.push_back({request, now}); }
  // All at once: their client leaves.
  void make_due(Clock::time_point now);

  bool empty() const { return held_.empty(); }
  size_t size() const { return held_.size(); }
  void clear() { held_.clear(); }
  // Calls visit(request) for each.
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (const Held& held : held_) visit(held.request);
  }

 private:
  struct Held {
    Request request;
    Clock::time_point due;
  };
  void keep(Request request, Clock::time_point now);

  const OnError policy_;
  std::vector<Held> held_;
};

}  // namespace underlay
