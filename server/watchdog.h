// Tells the service manager's watchdog that the server is alive, as long as every ring is.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "io/task.h"
#include "server/service_manager.h"
#include "server/serving_thread.h"

namespace underlay {

class Watchdog {
 public:
  // All outlive it, and `threads` stays as it is once tick() was called.
  Watchdog(ServiceManager& manager, const std::vector<std::unique_ptr<ServingThread>>& threads)
      : manager_(manager), threads_(threads) {}

  // On the main ring, again and again. Twice in the watchdog's time it asks the serving threads,
  // and the last one to answer tells the manager. `until_next`: when the next call will be.
  void tick(std::chrono::microseconds until_next);

 private:
  using Clock = std::chrono::steady_clock;

  struct Question final : Task {
    explicit Question(Watchdog& owner) : watchdog(owner) {}
    void run() override { watchdog.answered(); }
    Watchdog& watchdog;
  };
  void answered();

  ServiceManager& manager_;
  const std::vector<std::unique_ptr<ServingThread>>& threads_;
  std::deque<Question> questions_;  // one for each thread
  std::atomic<size_t> unanswered_ = 0;
  Clock::time_point asked_;
};

}  // namespace underlay
