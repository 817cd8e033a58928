#include "io/ring.h"

#include <liburing.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <thread>
#include <utility>

namespace underlay {
namespace {

// Requests that fit into one trip to the kernel; more of them take more trips.
constexpr unsigned kEntries = 512;
constexpr unsigned kCompletionBatch = 64;
// Rounds of completions, and of what follows from them, before the kernel hears of new operations.
constexpr unsigned kRounds = 16;

// What the kernel refuses for want of memory, it may do a little later.
constexpr std::chrono::milliseconds kRefusalPause{1};
constexpr unsigned kRefusals = 2000;

Failure refused(int error) {
  if (error == EPERM || error == ENOSYS || error == EACCES) {
    return fail_errno(error,
                      "this system forbids io_uring, which underlay needs: allow it with "
                      "sysctl kernel.io_uring_disabled=0, or in the container's seccomp profile "
                      "(io_uring_setup, io_uring_enter, io_uring_register)");
  }
  if (error == ENOMEM) {
    return fail_errno(error,
                      "cannot create an io_uring: raise the limit of locked memory "
                      "(ulimit -l, LimitMEMLOCK=)");
  }
  return fail_errno(error, "cannot create an io_uring");
}

// All that a ring of ours ever does: a process that falls into wrong hands gets no more out of it,
// although seccomp does not see into it.
constexpr std::array kOperations = {
    IORING_OP_ACCEPT, IORING_OP_RECV,    IORING_OP_POLL_ADD,     IORING_OP_SENDMSG,
    IORING_OP_READ,   IORING_OP_TIMEOUT, IORING_OP_ASYNC_CANCEL,
};

// Before the ring is enabled. Nothing can be registered with it later, either.
Result<void> restrict(int ring_fd) {
  std::array<io_uring_restriction, kOperations.size()> rules{};
  for (size_t i = 0; i < rules.size(); ++i) {
    rules[i].opcode = IORING_RESTRICTION_SQE_OP;
    rules[i].sqe_op = static_cast<uint8_t>(kOperations[i]);
  }
  // liburing 2.3 declares io_uring_register_restrictions() but does not export it.
  const long status = ::syscall(SYS_io_uring_register, ring_fd, IORING_REGISTER_RESTRICTIONS,
                                rules.data(), rules.size());
  if (status < 0) return fail_errno(errno, "cannot restrict the io_uring to what serving needs");
  return {};
}

}  // namespace

Ring::Ring() : ring_(std::make_unique<io_uring>()), lost_entry_(std::make_unique<io_uring_sqe>()) {}

Ring::~Ring() {
  if (initialised_) io_uring_queue_exit(ring_.get());
}

Result<std::unique_ptr<Ring>> Ring::create() {
  std::unique_ptr<Ring> ring(new Ring());
  // One thread submits, and runs the kernel's part of completions only when it waits: least
  // overhead (Linux 6.1). That thread is known at run() only, hence R_DISABLED.
  io_uring_params params{};
  // TASKRUN_FLAG shows what waits there without a system call.
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
  params.cq_entries = 4 * kEntries;
  int status = io_uring_queue_init_params(kEntries, ring->ring_.get(), &params);
  ring->enabled_late_ = status == 0;
  if (status == -EINVAL) {
    params = {};
    status = io_uring_queue_init_params(kEntries, ring->ring_.get(), &params);
  }
  if (status < 0) return refused(-status);
  ring->initialised_ = true;
  if (ring->enabled_late_) TRY(restrict(ring->ring_->ring_fd));
  ring->wakeup_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!ring->wakeup_.valid()) return fail_errno(errno, "cannot create an eventfd");
  return ring;
}

Result<void> Ring::run() {
  if (enabled_late_) {
    // liburing 2.3 declares io_uring_enable_rings() but does not export it.
    const long status =
        ::syscall(SYS_io_uring_register, ring_->ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    if (status < 0) return fail_errno(errno, "cannot enable the io_uring");
  }
  watch_wakeups();
  // What was asked for before the stop is still handed over: what it cancels would else live on in
  // the kernel, with its descriptor, after the ring.
  while (failure_ == 0 && (!stopping_ || io_uring_sq_ready(ring_.get()) > 0)) {
    if (!stopping_ && deferred_.empty() && done_.empty()) {
      wait();
    } else {
      enter(0);
    }
    handle_completions();
    // Once a round: tasks that defer themselves again must not hold up completions.
    run_tasks(deferred_.take());
  }
  if (failure_ == 0) return {};
  return fail_errno(failure_,
                    "the kernel does not take the io_uring's operations any more: free memory, or "
                    "raise the limits of memory (MemoryMax=, LimitMEMLOCK=), and start again");
}

// Hands over what was asked for, and waits for that many completions. What the kernel refuses for
// the moment is asked again, but not for ever.
void Ring::enter(unsigned wait_for) {
  const int status = io_uring_submit_and_wait(ring_.get(), wait_for);
  if (status >= 0 || status == -EINTR) {
    refusals_ = 0;
  } else if ((status == -EAGAIN || status == -EBUSY) && ++refusals_ < kRefusals) {
    std::this_thread::sleep_for(kRefusalPause);
  } else {
    failure_ = -status;
  }
}

void Ring::wait() {
  if (!window_.enabled()) return enter(1);
  const auto begun = std::chrono::steady_clock::now();
  if (!look(window_.length())) enter(1);
  window_.waited(std::chrono::steady_clock::now() - begun);
}

// Did something come in that time?
bool Ring::look(PollWindow::Duration length) {
  if (length == PollWindow::Duration::zero()) return false;
  enter(0);
  const auto end = std::chrono::steady_clock::now() + length;
  do {
    if (sees_work()) return true;
    ::sched_yield();  // the client may need this very core
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

bool Ring::sees_work() const {
  return io_uring_cq_ready(ring_.get()) > 0 ||
         (IO_URING_READ_ONCE(*ring_->sq.kflags) & IORING_SQ_TASKRUN) != 0;
}

// Takes over what the kernel has done. Is there anything to tell?
bool Ring::reap() {
  std::array<io_uring_cqe*, kCompletionBatch> entries;
  const unsigned count = io_uring_peek_batch_cqe(ring_.get(), entries.data(), kCompletionBatch);
  for (unsigned i = 0; i < count; ++i) {
    auto* completion = static_cast<Completion*>(io_uring_cqe_get_data(entries[i]));
    if (completion != nullptr) done_.push_back({completion, entries[i]->res});
  }
  io_uring_cq_advance(ring_.get(), count);
  return count > 0 || !done_.empty();
}

void Ring::handle_completions() {
  for (unsigned round = 0; round < kRounds && reap(); ++round) {
    handling_.swap(done_);
    for (const Done& done : handling_) done.completion->complete(done.result);
    handling_.clear();
    // A flood of completions must not hold up the replies.
    run_tasks(deferred_.take());
  }
}

void Ring::run_tasks(TaskQueue tasks) {
  while (!tasks.empty()) tasks.pop().run();
}

void Ring::post(Task& task) {
  const std::lock_guard lock(mutex_);
  const bool first = posted_.empty();
  posted_.push(task);
  if (first) wake();
}

void Ring::stop() {
  const std::lock_guard lock(mutex_);
  stop_posted_ = true;
  wake();
}

// Under the lock: once the ring's thread can see what was posted, it may end and take the eventfd
// with it.
void Ring::wake() {
  const uint64_t one = 1;
  (void)!::write(wakeup_.get(), &one, sizeof(one));
}

void Ring::watch_wakeups() {
  read(wakeup_.get(), kNoOffset,
       MutableByteSpan(reinterpret_cast<std::byte*>(&wakeup_count_), sizeof(wakeup_count_)),
       wakeup_completion_);
}

void Ring::on_wakeup(int) {
  TaskQueue tasks;
  bool stop_now = false;
  {
    const std::lock_guard lock(mutex_);
    tasks = posted_.take();
    stop_now = stop_posted_;
  }
  watch_wakeups();
  run_tasks(tasks);
  if (stop_now) stopping_ = true;
}

void Ring::defer(Task& task) { deferred_.push(task); }

io_uring_sqe* Ring::next_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(ring_.get());
  while (entry == nullptr && failure_ == 0) {
    enter(0);
    if (refusals_ > 0) (void)reap();  // it may be waiting for just that
    entry = io_uring_get_sqe(ring_.get());
  }
  return entry != nullptr ? entry : lost_entry_.get();
}

void Ring::accept(int listen_fd, Completion& completion) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_accept(entry, listen_fd, nullptr, nullptr, SOCK_CLOEXEC);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::receive(int fd, MutableByteSpan out, Completion& completion) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_recv(entry, fd, out.data(), out.size(), 0);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::wait_readable(int fd, Completion& completion) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_poll_add(entry, fd, POLLIN | POLLRDHUP);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::wait_writable(int fd, Completion& completion) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_poll_add(entry, fd, POLLOUT);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::send(int fd, const msghdr& message, Completion& completion) {
  io_uring_sqe* entry = next_entry();
  // MSG_WAITALL: the kernel goes on after a short send by itself.
  io_uring_prep_sendmsg(entry, fd, &message, MSG_NOSIGNAL | MSG_WAITALL);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::read(int fd, uint64_t offset, MutableByteSpan out, Completion& completion) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_read(entry, fd, out.data(), static_cast<unsigned>(out.size()), offset);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::timeout(std::chrono::milliseconds duration, __kernel_timespec& storage,
                   Completion& completion) {
  storage.tv_sec = duration.count() / 1000;
  storage.tv_nsec = duration.count() % 1000 * 1000000;
  io_uring_sqe* entry = next_entry();
  io_uring_prep_timeout(entry, &storage, 0, 0);
  io_uring_sqe_set_data(entry, &completion);
}

void Ring::cancel(Completion& completion) {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_cancel(entry, &completion, 0);
  io_uring_sqe_set_data(entry, nullptr);
}

}  // namespace underlay
