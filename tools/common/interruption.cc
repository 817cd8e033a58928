#include "tools/common/interruption.h"

#include <array>
#include <atomic>
#include <csignal>

namespace underlay {
namespace {

// Written by a signal handler, which can reach nothing else.
std::atomic<int> noted_signal{0};
static_assert(std::atomic<int>::is_always_lock_free);

constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};

void note(int signal) { noted_signal.store(signal, std::memory_order_relaxed); }

}  // namespace

void note_interruptions() {
  for (const int signal : kSignals) {
    struct sigaction old {};
    ::sigaction(signal, nullptr, &old);
    if (old.sa_handler == SIG_IGN) continue;  // nohup
    struct sigaction action {};
    action.sa_handler = note;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(signal, &action, nullptr);
  }
}

bool is_interrupted() { return noted_signal.load(std::memory_order_relaxed) != 0; }

void die_of_interruption() {
  const int signal = noted_signal.load(std::memory_order_relaxed);
  if (signal == 0) return;
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace underlay
