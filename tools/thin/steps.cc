#include "tools/thin/steps.h"

#include <csignal>
#include <iterator>

#include "tools/thin/fault_point.h"

namespace underlay::thin {
namespace {

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

// Undoes what was done, last first; what cannot be undone is added to the error.
Failure undo_all(const std::vector<Step>& steps, size_t done, Error error) {
  for (size_t i = done; i-- > 0;) {
    const Step& step = steps[i];
    if (!step.undo) continue;
    if (const auto undone = step.undo(); !undone) {
      error.message += fmt::format("; taking back '{}' failed too ({}): run 'underlay-thin fsck'",
                                   step.name, undone.error().to_string());
    }
  }
  return Failure(std::move(error));
}

}  // namespace

Result<void> run_steps(const std::vector<Step>& steps, StepReport& report) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const Step& step = steps[i];
    if (interrupted()) {
      return undo_all(steps, i,
                      Error{.kind = ErrorKind::kUsage,
                            .sys_errno = 0,
                            .file = {},
                            .offset = std::nullopt,
                            .message = "interrupted; everything was taken back"});
    }
    fault_point(step.name + ":before");
    const auto start = std::chrono::steady_clock::now();
    auto result = step.run();
    if (!result) return undo_all(steps, i, std::move(result).error());
    report.done.push_back({.name = step.name,
                           .words = step.words,
                           .time = std::chrono::duration_cast<std::chrono::microseconds>(
                               std::chrono::steady_clock::now() - start)});
    fault_point(step.name + ":after");
  }
  return {};
}

Result<void> run_steps(const std::vector<Step>& steps) {
  StepReport report;
  return run_steps(steps, report);
}

void append_steps(std::vector<Step>& steps, std::vector<Step> more) {
  std::move(more.begin(), more.end(), std::back_inserter(steps));
}

void hold_signals() {
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

bool interrupted() {
  sigset_t pending;
  if (sigpending(&pending) != 0) return false;
  return sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1;
}

InterruptionPutOff::InterruptionPutOff() {
  const sigset_t signals = ending_signals();
  constexpr timespec kNow{};
  for (int signal = 0; (signal = ::sigtimedwait(&signals, nullptr, &kNow)) > 0;) {
    signals_.push_back(signal);
  }
}

InterruptionPutOff::~InterruptionPutOff() {
  for (const int signal : signals_) ::kill(::getpid(), signal);
}

}  // namespace underlay::thin
