// Threads for what may block or burn CPU: first touch of a table, decompression, cold files.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "io/task.h"

namespace underlay {

// Thread-safe. The destructor runs what is queued, then ends the threads.
class WorkerPool {
 public:
  // REQUIRES: threads > 0.
  explicit WorkerPool(unsigned threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs `task` on some worker, in order of submission. The task lives until it has run.
  void submit(Task& task);

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  TaskQueue queue_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace underlay
