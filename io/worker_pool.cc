#include "io/worker_pool.h"

#include <algorithm>

namespace underlay {
namespace {

constexpr auto kDemand = static_cast<size_t>(Urgency::kDemand);
constexpr auto kFar = static_cast<size_t>(Urgency::kFar);
constexpr auto kAhead = static_cast<size_t>(Urgency::kAhead);
constexpr auto kArrival = static_cast<size_t>(Urgency::kArrival);
constexpr auto kLong = static_cast<size_t>(Urgency::kLong);

// Whose turn it is before those that clients wait for: those who arrive, those in between, the
// least urgent, those in between again.
using Order = std::array<size_t, 5>;
constexpr Order kUsual = {kDemand, kFar, kAhead, kArrival, kLong};
constexpr Order kAheadFirst = {kAhead, kArrival, kLong, kDemand, kFar};
constexpr std::array<Order, 4> kInTurn = {
    Order{kArrival, kLong, kAhead, kDemand, kFar}, kAheadFirst,
    Order{kLong, kArrival, kAhead, kDemand, kFar}, kAheadFirst};

constexpr bool may_take_long(size_t urgency) { return urgency == kArrival || urgency == kLong; }

}  // namespace

WorkerPool::WorkerPool(unsigned threads, Start start, unsigned for_near)
    : max_long_(std::max(1u, threads - 1)),
      max_far_(threads > for_near ? threads - for_near : 1),
      count_(threads) {
  if (start == Start::kNow) this->start();
}

void WorkerPool::start() {
  threads_.reserve(count_);
  for (unsigned i = 0; i < count_; ++i) threads_.emplace_back([this] { work(); });
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
  if (queues_[urgency].empty()) return false;
  if (urgency == kFar) return far_running_ < max_far_;
  return !may_take_long(urgency) || long_running_ < max_long_;
}

// kUrgencies when there is nothing to be done.
size_t WorkerPool::next_urgency() {
  const bool for_others = turn_ % kPatience == kPatience - 1;
  const Order& order = for_others ? kInTurn[turn_ / kPatience] : kUsual;
  for (const size_t urgency : order) {
    if (!may_run(urgency)) continue;
    turn_ = (turn_ + 1) % (kInTurn.size() * kPatience);
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
    if (may_take_long(urgency)) ++long_running_;
    if (urgency == kFar) ++far_running_;
    lock.unlock();
    task.run();
    lock.lock();
    if (may_take_long(urgency)) --long_running_;
    if (urgency == kFar) --far_running_;
  }
}

}  // namespace underlay
