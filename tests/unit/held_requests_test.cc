#include "server/held_requests.h"

#include <doctest/doctest.h>

#include <cerrno>

#include "server/limits.h"
#include "server/read_faults.h"

namespace underlay {
namespace {

using Clock = HeldRequests::Clock;
using std::chrono::milliseconds;

Error error_of(ErrorKind kind) {
  Error error;
  error.kind = kind;
  return error;
}
Request request_of(uint64_t cookie, uint8_t tries) {
  Request request;
  request.cookie = cookie;
  request.tries = tries;
  return request;
}
const Error kIoError = error_of(ErrorKind::kIo);
const Error kTruncatedFile = error_of(ErrorKind::kTruncated);
const Clock::time_point kNow{milliseconds(1'000'000)};

// Holds a request again and again, as often as it is taken; the time that it waited in all.
struct Tried {
  unsigned tries = 0;
  Clock::duration waited{};
};
Tried try_until_refused(HeldRequests& held, const Error& error, bool leaving, unsigned most) {
  Tried tried;
  Request request;
  Clock::time_point now = kNow;
  while (tried.tries < most && held.hold(request, error, leaving, now)) {
    ++tried.tries;
    CHECK_FALSE(held.take_due(now).has_value());
    now = held.next_due();
    request = held.take_due(now).value();
    CHECK(held.empty());
  }
  tried.waited = now - kNow;
  return tried;
}

}  // namespace

TEST_CASE("held requests: eio tries again a few times, within two seconds, then answers") {
  HeldRequests held(OnError::kEio);
  const Tried tried = try_until_refused(held, kIoError, false, 100);
  CHECK(tried.tries == limits::kRetries);
  CHECK(tried.waited < milliseconds(2'000));
  CHECK(tried.waited > milliseconds(1'000));
}

TEST_CASE("held requests: hold goes on for ever, once a second, but not for a client that leaves") {
  HeldRequests held(OnError::kHold);
  const Tried tried = try_until_refused(held, kIoError, false, 1000);
  CHECK(tried.tries == 1000);
  CHECK(tried.waited > limits::kRetryLongest * 990);
  CHECK(try_until_refused(held, kIoError, true, 100).tries == limits::kRetries);
}

TEST_CASE("held requests: what the system cannot do now may pass, whatever it calls it") {
  for (const int reason : {EIO, ESTALE, ENOMEM, ENFILE, ETIMEDOUT}) {
    CHECK(HeldRequests::may_pass(fail_errno(reason, "cannot read").value()));
  }
}

TEST_CASE("held requests: what cannot pass is answered at once") {
  for (const OnError policy : {OnError::kEio, OnError::kHold}) {
    HeldRequests held(policy);
    for (const ErrorKind kind :
         {ErrorKind::kMalformed, ErrorKind::kUnsupported, ErrorKind::kLimit, ErrorKind::kDenied}) {
      CHECK_FALSE(held.hold({}, error_of(kind), false, kNow));
    }
    CHECK(held.empty());
  }
}

TEST_CASE("held requests: a file that is too short is given time to be noticed as changed") {
  HeldRequests eio(OnError::kEio);
  CHECK_FALSE(eio.hold({}, kTruncatedFile, false, kNow));
  CHECK_FALSE(eio.hold_for_good({}, false, kNow));
  HeldRequests hold(OnError::kHold);
  const Tried tried = try_until_refused(hold, kTruncatedFile, false, 100);
  CHECK(tried.tries == limits::kRetries);
  CHECK(tried.waited > limits::kChangeCheck);
  CHECK(hold.hold_for_good({}, false, kNow));
  CHECK_FALSE(hold.hold_for_good({}, true, kNow));
}

TEST_CASE("held requests: each has its own time, and all are due when the client leaves") {
  HeldRequests held(OnError::kHold);
  CHECK(held.hold(request_of(1, 3), kIoError, false, kNow));
  CHECK(held.hold(request_of(2, 0), kIoError, false, kNow));
  CHECK(held.next_due() == kNow + limits::kRetryFirst);
  CHECK(held.take_due(kNow + limits::kRetryFirst).value().cookie == 2);
  CHECK_FALSE(held.take_due(kNow + limits::kRetryFirst).has_value());
  held.give_back(request_of(2, 1), kNow);
  held.make_due(kNow);
  CHECK(held.size() == 2);
  CHECK(held.take_due(kNow).value().tries == 4);
  CHECK(held.take_due(kNow).value().tries == 1);
}

TEST_CASE("read faults: the first that waits and the last that is done are told") {
  ReadFaults faults;
  CHECK(faults.hold(true));
  CHECK_FALSE(faults.hold(true));
  CHECK_FALSE(faults.hold(false));
  CHECK_FALSE(faults.release());
  faults.fail();
  CHECK(faults.release());
  CHECK(faults.hold(true));
  CHECK(faults.counts().held == 1);
  CHECK(faults.counts().retried == 4);
  CHECK(faults.counts().failed == 1);
}

}  // namespace underlay
