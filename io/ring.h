// An io_uring and the thread that serves it. The only code that knows liburing.
#pragma once

#include <linux/time_types.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "io/bytes.h"
#include "io/error.h"
#include "io/poll_window.h"
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

  // Lets the thread look for completions for up to `limit` before it sleeps, as long as that pays:
  // see PollWindow. It gives way to other threads meanwhile. REQUIRES: before run().
  void poll_before_sleep(std::chrono::microseconds limit) { window_ = PollWindow(limit); }

  // Serves completions and tasks on the calling thread, which becomes the ring's, until stop().
  // Fails only when the kernel refuses to go on; operations that are under way may then never
  // complete.
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
  // Waits until something can be received, the end of the stream and errors included.
  void wait_readable(int fd, Completion& completion);
  // Waits until something can be sent, or never can be.
  void wait_writable(int fd, Completion& completion);
  // Sends all of `message`, which lives until the completion, or fails. Its completion ends the
  // next wait: what fits into a socket's buffer takes fewer trips by a plain system call.
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
  struct Done {
    Completion* completion;
    int result;
  };

  io_uring_sqe* next_entry();
  void enter(unsigned wait_for);
  void wait();
  bool look(PollWindow::Duration length);
  bool sees_work() const;
  void wake();
  void watch_wakeups();
  bool reap();
  void handle_completions();
  void run_tasks(TaskQueue tasks);
  void on_wakeup(int result);

  std::unique_ptr<io_uring> ring_;
  std::unique_ptr<io_uring_sqe> lost_entry_;  // for what is asked of a ring that has failed
  int failure_ = 0;                           // the errno that made it fail
  unsigned refusals_ = 0;                     // of the kernel, one after the other
  PollWindow window_;
  std::vector<Done> done_;      // has happened, not told yet
  std::vector<Done> handling_;  // is being told
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
