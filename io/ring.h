// An io_uring and the thread that serves it. The only code that knows liburing.
#pragma once

#include <linux/time_types.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

#include "io/bytes.h"
#include "io/error.h"
#include "io/task.h"
#include "io/unique_fd.h"

struct io_uring;
struct io_uring_sqe;

namespace underlay {

// One operation that the kernel carries out. It must live, at its address, until complete() was
// called; complete() is called exactly once for each operation, cancelled ones too.
class Completion {
 public:
  Completion() = default;
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;
  virtual ~Completion() = default;
  // `result`: what the system call would return, or -errno; -ECANCELED after Ring::cancel().
  virtual void complete(int result) = 0;
};

// A completion that calls a method of the object that contains it.
template <auto Method>
class MethodCompletion;
template <class Owner, void (Owner::*Method)(int)>
class MethodCompletion<Method> final : public Completion {
 public:
  explicit MethodCompletion(Owner& owner) : owner_(owner) {}
  void complete(int result) override { (owner_.*Method)(result); }

 private:
  Owner& owner_;
};

// One thread runs a ring; all methods belong to that thread, but for those marked "any thread".
class Ring {
 public:
  // Fails with one line that says how to allow io_uring when the system forbids it.
  static Result<std::unique_ptr<Ring>> create();
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Serves completions and tasks on the calling thread, which becomes the ring's, until stop().
  // Fails only when the kernel refuses to go on.
  Result<void> run();
  // Makes run() return once the tasks posted before have run. Any thread.
  void stop();
  // Runs `task` on the ring's thread. Any thread, also before run().
  void post(Task& task);
  // Runs `task` once the completions at hand have been handled: many of them, one task.
  void defer(Task& task);
  // Hands what was asked for so far to the kernel now, instead of with the next wait.
  void submit();

  void accept(int listen_fd, Completion& completion);
  void receive(int fd, MutableByteSpan out, Completion& completion);
  // Sends all of `message`, which lives until the completion, or fails.
  void send(int fd, const msghdr& message, Completion& completion);
  // `offset` kNoOffset for what has none (signalfd).
  void read(int fd, uint64_t offset, MutableByteSpan out, Completion& completion);
  static constexpr uint64_t kNoOffset = ~uint64_t{0};
  // Completes with -ETIME after `duration`. `storage` lives until the completion.
  void timeout(std::chrono::milliseconds duration, __kernel_timespec& storage,
               Completion& completion);
  // Asks for an early end of the operation of `completion`, which still completes once.
  void cancel(Completion& completion);

 private:
  Ring();
  io_uring_sqe* next_entry();
  void wake();
  void watch_wakeups();
  void handle_completions();
  void run_tasks(TaskQueue tasks);
  void on_wakeup(int result);

  std::unique_ptr<io_uring> ring_;
  bool initialised_ = false;
  bool enabled_late_ = false;
  bool stopping_ = false;
  TaskQueue deferred_;
  UniqueFd wakeup_;  // eventfd: another thread has posted
  uint64_t wakeup_count_ = 0;
  MethodCompletion<&Ring::on_wakeup> wakeup_completion_{*this};

  std::mutex mutex_;
  TaskQueue posted_;          // under mutex_
  bool stop_posted_ = false;  // under mutex_
};

}  // namespace underlay
