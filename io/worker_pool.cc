#include "io/worker_pool.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr auto kLong = static_cast<size_t>(Urgency::kLong);

}  // namespace

WorkerPool::WorkerPool(unsigned threads) : max_long_(std::max(1u, threads - 1)) {
  threads_.reserve(threads);
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::submit(Task& task, Urgency urgency) {
  {
    const std::lock_guard lock(mutex_);
    queues_[static_cast<size_t>(urgency)].push(task);
  }
  wake_.notify_one();
}

bool WorkerPool::may_run(size_t urgency) const {
  return !queues_[urgency].empty() && (urgency != kLong || long_running_ < max_long_);
}

// kUrgencies when there is nothing to be done.
size_t WorkerPool::next_urgency() {
  const bool last_first = turn_ == kPatience - 1;
  for (size_t i = 0; i < kUrgencies; ++i) {
    const size_t urgency = last_first ? kUrgencies - 1 - i : i;
    if (!may_run(urgency)) continue;
    turn_ = (turn_ + 1) % kPatience;
    return urgency;
  }
  return kUrgencies;
}

void WorkerPool::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const size_t urgency = next_urgency();
    if (urgency == kUrgencies) {
      if (ending_) return;
      wake_.wait(lock);
      continue;
    }
    Task& task = queues_[urgency].pop();
    if (urgency == kLong) ++long_running_;
    lock.unlock();
    task.run();
    lock.lock();
    if (urgency == kLong) --long_running_;
  }
}

}  // namespace underlay
