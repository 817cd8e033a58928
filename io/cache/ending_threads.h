// Threads whose end may be waited for, but not for ever.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace underlay {

// add() and the destructor are for one thread, wait() is for any.
class EndingThreads {
 public:
  EndingThreads() = default;
  EndingThreads(const EndingThreads&) = delete;
  EndingThreads& operator=(const EndingThreads&) = delete;
  // Waits for all of them, who have been told to end.
  ~EndingThreads() {
    for (std::thread& thread : threads_) thread.join();
  }

  void add(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      ++running_;
    }
    threads_.emplace_back([this, work = std::move(work)] {
      work();
      const std::lock_guard lock(mutex_);
      --running_;
      ended_.notify_all();
    });
  }

  // Have all ended, at `until`?
  bool wait(std::chrono::steady_clock::time_point until) {
    std::unique_lock lock(mutex_);
    return ended_.wait_until(lock, until, [&] { return running_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t running_ = 0;  // under the mutex
  std::vector<std::thread> threads_;
};

}  // namespace underlay
