// Threads for what may block or burn CPU: first touch of a table, decompression, cold files.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "io/task.h"

namespace underlay {

// Who waits for a task.
enum class Urgency : uint8_t {
  kDemand,  // a client, for the bytes that it reads
  kFar,     // the same, from another machine, which may not answer: never on all of several threads
  kAhead,   // nobody yet; short
  kArrival,  // a client that comes; may take long, as kLong
  kLong,     // whoever can wait behind the others; may take long: never on all of several threads
};

// Thread-safe. The destructor runs what is queued, then ends the threads.
class WorkerPool {
 public:
  enum class Start : uint8_t { kNow, kLater };  // kLater: at start()
  // REQUIRES: threads > 0.
  // `for_near`: so many of them run no kFar.
  explicit WorkerPool(unsigned threads, Start start = Start::kNow, unsigned for_near = 1);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // REQUIRES: kLater, once. Until then nothing runs; what is queued may also stay so for ever.
  void start();

  // Runs `task` on some worker: the more urgent ones first, though one in kPatience tasks is of
  // those that are less urgent, in turn; those of one urgency in order of submission. The task
  // lives until it has run.
  void submit(Task& task, Urgency urgency);

  unsigned threads() const { return count_; }

  static constexpr unsigned kPatience = 8;

 private:
  static constexpr size_t kUrgencies = 5;
  void work();
  bool may_run(size_t urgency) const;
  size_t next_urgency();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::array<TaskQueue, kUrgencies> queues_;
  unsigned turn_ = 0;  // tasks taken, modulo 4 * kPatience
  unsigned long_running_ = 0;
  unsigned max_long_;
  unsigned far_running_ = 0;
  unsigned max_far_;
  bool ending_ = false;
  unsigned count_;
  std::vector<std::thread> threads_;
};

}  // namespace underlay
