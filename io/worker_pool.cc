#include "io/worker_pool.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr auto kDemand = static_cast<size_t>(Urgency::kDemand);
constexpr auto kAhead = static_cast<size_t>(Urgency::kAhead);
constexpr auto kLong = static_cast<size_t>(Urgency::kLong);

// When the least urgent had their turn, it is those in between the next time.
using Order = std::array<size_t, 3>;
constexpr Order kUsual = {kDemand, kAhead, kLong};
constexpr Order kLongFirst = {kLong, kAhead, kDemand};
constexpr Order kAheadFirst = {kAhead, kLong, kDemand};

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
  const Order& order = turn_ == kPatience - 1       ? kLongFirst
                       : turn_ == 2 * kPatience - 1 ? kAheadFirst
                                                    : kUsual;
  for (const size_t urgency : order) {
    if (!may_run(urgency)) continue;
    turn_ = (turn_ + 1) % (2 * kPatience);
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
