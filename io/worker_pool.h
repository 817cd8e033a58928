// Threads for what may block or burn CPU: first touch of a table, decompression, cold files.
#pragma once

#include <array>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "io/task.h"

namespace underlay {

// Who waits for a task.
enum class Urgency : uint8_t {
  kDemand,  // a client, for the bytes that it reads
  kAhead,   // nobody yet; short
  kLong,    // whoever can wait behind the others; may take long: never on all of several threads
};

// Thread-safe. The destructor runs what is queued, then ends the threads.
class WorkerPool {
 public:
  // REQUIRES: threads > 0.
  explicit WorkerPool(unsigned threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs `task` on some worker: the more urgent ones first, though one in kPatience tasks is of
  // those that wait for the least urgent, or in between, in turn; those of one urgency in order of
  // submission. The task lives until it has run.
  void submit(Task& task, Urgency urgency);

  unsigned threads() const { return static_cast<unsigned>(threads_.size()); }

  static constexpr unsigned kPatience = 8;

 private:
  static constexpr size_t kUrgencies = 3;
  void work();
  bool may_run(size_t urgency) const;
  size_t next_urgency();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::array<TaskQueue, kUrgencies> queues_;
  unsigned turn_ = 0;  // tasks taken, modulo 2 * kPatience
  unsigned long_running_ = 0;
  unsigned max_long_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace underlay
