#include "tools/thin/bounded_suspend.h"

#include <sys/time.h>

#include <cerrno>
#include <csignal>

namespace underlay::thin {
namespace {

constexpr std::chrono::milliseconds kRepeat{100};

timeval to_timeval(std::chrono::milliseconds time) {
  return {.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
}

// A signal without effect, which interrupts the system call that is under way. It is repeated, in
// case it comes just before that call.
class Alarm {
 public:
  explicit Alarm(std::chrono::milliseconds after) {
    struct sigaction action {};
    action.sa_handler = [](int) {};  // no SA_RESTART
    ::sigaction(SIGALRM, &action, &before_);
    const itimerval timer{.it_interval = to_timeval(kRepeat), .it_value = to_timeval(after)};
    ::setitimer(ITIMER_REAL, &timer, nullptr);
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;
  ~Alarm() {
    const itimerval off{};
    ::setitimer(ITIMER_REAL, &off, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }

 private:
  struct sigaction before_ {};
};

}  // namespace

Result<SuspendGuard> suspend_within(const std::string& name, std::chrono::milliseconds limit) {
  auto guard = [&] {
    const Alarm alarm(limit);
    return SuspendGuard::suspend(name, Flush::kDrain);
  }();
  if (!guard && guard.error().sys_errno == EINTR) {
    return fail(ErrorKind::kIo,
                "a request of {} has not ended within {} ms (is its image's server alive, its pool "
                "full?): it was not suspended",
                dm_path(name), limit.count());
  }
  return guard;
}

}  // namespace underlay::thin
