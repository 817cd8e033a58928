#include "server/watchdog.h"

namespace underlay {

void Watchdog::tick(std::chrono::microseconds until_next) {
  const std::chrono::microseconds limit = manager_.watchdog();
  if (limit.count() == 0 || unanswered_ > 0) return;
  // Rather a tick early than late.
  const Clock::time_point now = Clock::now();
  if (now - asked_ + until_next / 2 < limit / 2) return;
  asked_ = now;
  while (questions_.size() < threads_.size()) questions_.emplace_back(*this);
  unanswered_ = threads_.size();
  for (size_t i = 0; i < threads_.size(); ++i) threads_[i]->ask(questions_[i]);
}

void Watchdog::answered() {
  if (--unanswered_ == 0) manager_.alive();
}

}  // namespace underlay
