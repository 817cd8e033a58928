#include "io/nbd_connection.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <cstring>

namespace underlay {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kAllocation = "base:allocation";

// NBD protocol, "Block size constraints".
constexpr uint64_t kLargestMinBlock = 64 << 10;

// Of one read. Less than any server's maximum that is in use (32 MiB), so that a slow network has
// it through within the time for an answer.
constexpr uint64_t kMaxRead = 4 << 20;

// NBD protocol, "base:allocation".
constexpr uint32_t kStateHole = 1;
constexpr uint32_t kStateZero = 2;

}  // namespace

// On the stack of the thread that waits for it; libnbd writes to it, and to the buffer, only until
// it is done or the handle is closed.
struct NbdConnection::Request {
  bool done = false;
  int64_t cookie = -1;
  std::condition_variable wake;  // done, lost, or to run the connection
  // Of block status.
  uint64_t end = 0;
  bool malformed = false;
  std::vector<NbdRun> runs;

  // libnbd calls these while it is called itself: under the mutex.
  static int on_done(void* data, int*) {
    auto& request = *static_cast<Request*>(data);
    request.done = true;
    request.wake.notify_one();
    // Not retired by itself: only nbd_aio_command_completed() checks that a read got all its bytes.
    return 0;
  }
  static int on_extents(void* data, const char* context, uint64_t, uint32_t* entries, size_t count,
                        int*) {
    auto& request = *static_cast<Request*>(data);
    if (std::strcmp(context, kAllocation) != 0) return 0;
    // Of a server that answers twice, it is open which of the answers is meant.
    if (!request.runs.empty()) request.malformed = true;
    // No exception may pass through the library.
    const auto kept = without_exceptions([&] { return request.keep(entries, count); });
    if (!kept) request.malformed = true;
    return 0;
  }
  Result<void> keep(const uint32_t* entries, size_t count) {
    for (size_t i = 0; i + 1 < count; i += 2) {
      if (entries[i] == 0) return fail(ErrorKind::kMalformed, "an extent of no bytes");
      const bool zero = (entries[i + 1] & kStateZero) != 0;
      const bool hole = (entries[i + 1] & kStateHole) != 0;
      end += entries[i];
      if (!runs.empty() && runs.back().zero == zero && runs.back().hole == hole) {
        runs.back().end = end;
      } else if (runs.size() < kMaxRuns) {
        runs.push_back({.end = end, .zero = zero, .hole = hole});
      } else {
        break;
      }
    }
    return {};
  }
};

Result<std::unique_ptr<NbdConnection>> NbdConnection::connect(
    const std::string& uri, std::chrono::milliseconds connect_limit,
    std::chrono::milliseconds answer_limit) {
  std::unique_ptr<NbdConnection> connection(new NbdConnection(answer_limit));
  TRY(connection->open(uri, connect_limit));
  return connection;
}

Result<void> NbdConnection::open(const std::string& uri, std::chrono::milliseconds limit) {
  handle_.reset(::nbd_create());
  if (!handle_ || ::nbd_add_meta_context(handle_.get(), kAllocation) != 0) {
    return libnbd_failure("cannot connect");
  }
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return fail_errno(errno, "cannot connect: no eventfd");
  TRY(begin_connecting(handle_.get(), uri));
  TRY(finish_connecting(handle_.get(), limit));
  return learn_facts();
}

Result<void> NbdConnection::learn_facts() {
  nbd_handle* const handle = handle_.get();
  const int64_t size = ::nbd_get_size(handle);
  const int64_t min_block = ::nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  const int64_t max_block = ::nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  const int multi_conn = ::nbd_can_multi_conn(handle);
  const int block_status = ::nbd_can_meta_context(handle, kAllocation);
  if (size < 0 || min_block < 0 || max_block < 0 || multi_conn < 0 || block_status < 0) {
    return libnbd_failure("cannot learn what the export is");
  }
  facts_.size = static_cast<uint64_t>(size);
  facts_.min_block = std::max<uint64_t>(1, static_cast<uint64_t>(min_block));
  facts_.max_block =
      max_block == 0 ? kMaxRead : std::min(static_cast<uint64_t>(max_block), kMaxRead);
  facts_.multi_conn = multi_conn == 1;
  facts_.block_status = block_status == 1;
  if (!std::has_single_bit(facts_.min_block) || facts_.min_block > kLargestMinBlock ||
      facts_.max_block < facts_.min_block) {
    return fail(ErrorKind::kMalformed,
                "the server states a minimum block size of {} and a maximum of {} bytes; the "
                "protocol has powers of 2 up to {}, and no maximum below them",
                min_block, max_block, kLargestMinBlock);
  }
  facts_.max_block -= facts_.max_block % facts_.min_block;
  return {};
}

NbdConnection::~NbdConnection() {
  assert(waiting_.empty());
  if (handle_) (void)::nbd_aio_disconnect(handle_.get(), 0);
}

Result<void> NbdConnection::read(uint64_t offset, MutableByteSpan out) {
  Request request;
  std::unique_lock lock(mutex_);
  if (!handle_) return Failure(lost_);
  TRY(issue(
      request,
      ::nbd_aio_pread(handle_.get(), out.data(), out.size(), offset,
                      {.callback = Request::on_done, .user_data = &request, .free = nullptr}, 0)));
  auto answered = wait(lock, request);
  if (!answered) return with_context(std::move(answered).error(), "cannot read: ");
  return {};
}

Result<std::vector<NbdRun>> NbdConnection::block_status(uint64_t offset, uint32_t length) {
  Request request;
  request.end = offset;
  std::unique_lock lock(mutex_);
  if (!handle_) return Failure(lost_);
  TRY(issue(request,
            ::nbd_aio_block_status(
                handle_.get(), length, offset,
                {.callback = Request::on_extents, .user_data = &request, .free = nullptr},
                {.callback = Request::on_done, .user_data = &request, .free = nullptr}, 0)));
  TRY(wait(lock, request));
  if (request.malformed || request.runs.empty()) {
    return fail(ErrorKind::kMalformed, "the server's block status makes no sense");
  }
  return std::move(request.runs);
}

// What libnbd said when it was given a request.
Result<void> NbdConnection::issue(Request& request, int64_t cookie) {
  if (cookie < 0) {
    Error error = libnbd_failure("cannot send a request").value();
    if (::nbd_aio_is_ready(handle_.get()) != 1 && waiting_.empty()) lose(error);
    return Failure(std::move(error));
  }
  request.cookie = cookie;
  // Who polls only for answers must poll for room in the socket, too.
  const bool blocked = (::nbd_aio_get_direction(handle_.get()) & LIBNBD_AIO_DIRECTION_WRITE) != 0;
  if (running_ && blocked) (void)::eventfd_write(wake_.get(), 1);
  return {};
}

Result<void> NbdConnection::wait(std::unique_lock<std::mutex>& lock, Request& request) {
  const auto until = Clock::now() + answer_limit_;
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  waiting_.push_back(&request);
  while (!request.done && handle_) {
    if (Clock::now() >= until) {
      lose(fail(ErrorKind::kIo, "no answer from the server within {} ms", answer_limit_.count())
               .value());
    } else if (running_) {
      request.wake.wait_until(lock, until);
    } else {
      running_ = true;
      run_once(lock, until);
      running_ = false;
    }
  }
  std::erase(waiting_, &request);
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  wake_another();
  if (!handle_) return Failure(lost_);
  if (::nbd_aio_command_completed(handle_.get(), static_cast<uint64_t>(request.cookie)) == 1) {
    return {};
  }
  const int error = ::nbd_get_errno();
  return fail_errno(error != 0 ? error : EIO, "the server reports an error");
}

// Waits once for the socket, without the lock, and lets libnbd do what there is to do.
void NbdConnection::run_once(std::unique_lock<std::mutex>& lock, Clock::time_point until) {
  const unsigned direction = ::nbd_aio_get_direction(handle_.get());
  int events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= POLLOUT;
  std::array<pollfd, 2> fds{pollfd{::nbd_aio_get_fd(handle_.get()), static_cast<short>(events), 0},
                            pollfd{wake_.get(), POLLIN, 0}};
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
  lock.unlock();
  const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(std::max<int64_t>(1, left)));
  lock.lock();
  eventfd_t count = 0;
  if (fds[1].revents != 0) (void)::eventfd_read(wake_.get(), &count);
  if (ready > 0 && handle_) notify(fds[0].revents);
}

// As nbd_poll(3) does it: one thing at a time, because it may change what comes next.
void NbdConnection::notify(short events) {
  int told = 0;
  if ((events & (POLLIN | POLLHUP)) != 0) {
    told = ::nbd_aio_notify_read(handle_.get());
  } else if ((events & POLLOUT) != 0) {
    told = ::nbd_aio_notify_write(handle_.get());
  } else if ((events & (POLLERR | POLLNVAL)) != 0) {
    lose(fail_errno(ENOTCONN, "the connection broke").value());
    return;
  }
  if (told < 0) return lose(libnbd_failure("the connection broke").value());
  if (::nbd_aio_is_dead(handle_.get()) == 1 || ::nbd_aio_is_closed(handle_.get()) == 1) {
    lose(fail(ErrorKind::kIo, "the server closed the connection").value());
  }
}

// From here on libnbd writes to nobody's buffer.
void NbdConnection::lose(Error why) {
  handle_.reset();
  is_lost_.store(true, std::memory_order_relaxed);
  lost_ = std::move(why);
  for (Request* const request : waiting_) request->wake.notify_one();
  (void)::eventfd_write(wake_.get(), 1);
}

// Who ran the connection has its answer: another of those that wait must.
void NbdConnection::wake_another() {
  if (running_) return;
  const auto next = std::find_if(waiting_.begin(), waiting_.end(),
                                 [](const Request* request) { return !request->done; });
  if (next != waiting_.end()) (*next)->wake.notify_one();
}

}  // namespace underlay
