#include "server/server.h"

#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "server/entry_fields.h"
#include "server/limits.h"

namespace underlay {
namespace {

// After accept() failed for want of descriptors or memory.
constexpr std::chrono::milliseconds kAcceptPause{500};

// Memory is given back to the system after so many clients, or all, have left, or so much was
// freed; and again: what is freed bit by bit meanwhile would stay.
constexpr unsigned kFreedClients = 64;
constexpr uint64_t kFreedBytes = 16 << 20;
constexpr int kTrims = 3;

void set_tcp_options(int socket) {
  const int on = 1;
  // Replies are sent in batches already; waiting for more would only add latency.
  (void)::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  (void)::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

}  // namespace

Server::Server(const ServerConfig& config, ExportCatalog& catalog, Log& log,
               ServiceManager& manager, std::unique_ptr<Ring> ring)
    : config_(config),
      catalog_(catalog),
      log_(log),
      manager_(manager),
      reply_memory_(limits::kReplyMemory, limits::kReplyReserve),
      ring_(std::move(ring)),
      workers_(std::max(1u, config.workers), WorkerPool::Start::kLater, config.near_workers) {}

Result<std::unique_ptr<Server>> Server::create(const ServerConfig& config, ExportCatalog& catalog,
                                               const CurrentCredentials& credentials, Log& log,
                                               ServiceManager& manager) {
  // Before the workers start: they inherit the mask.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  if (::sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) {
    return fail_errno(errno, "cannot block signals");
  }
  UniqueFd signal_fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!signal_fd.valid()) return fail_errno(errno, "cannot create a signalfd");

  auto ring = TRY(Ring::create());
  std::unique_ptr<Server> server(new Server(config, catalog, log, manager, std::move(ring)));
  server->signals_ = std::move(signal_fd);
  const ServingContext context{.workers = server->workers_,
                               .catalog = catalog,
                               .clients = server->registry_,
                               .reply_memory = server->reply_memory_,
                               .log = log,
                               // With -e 1 a second connection would wait for the first to end.
                               .offer = {.allocation_depth = config.allocation_depth,
                                         .multi_conn = config.max_clients != 1,
                                         .tls = config.tls},
                               .tls_credentials = credentials,
                               .on_error = config.on_error,
                               .poll = config.poll,
                               .slow_request = config.slow_request};
  for (unsigned i = 0; i < std::max(1u, config.threads); ++i) {
    server->threads_.push_back(TRY(ServingThread::create(context, *server)));
  }
  return server;
}

void Server::run() {
  workers_.start();
  for (const auto& thread : threads_) thread->start();
  on_signal(0);
  ring_->timeout(limits::kChangeCheck, tick_time_, tick_);
  accept_more();
  if (handover_) handover_->start();
  const Result<void> served = ring_->run();
  if (!served) thread_failed(served.error());
}

// As qemu-nbd: while -e clients are connected, others wait in the backlog.
void Server::accept_more() {
  metrics_.clients = clients_;
  const unsigned limit = config_.max_clients == 0
                             ? limits::kConnections
                             : std::min(config_.max_clients, limits::kConnections);
  if (pausing_ != Pausing::kNo) return;
  if (draining_) early_.clear();
  while (!stopping_ && clients_ < limit && !early_.empty()) {
    metrics_.clients = ++clients_;
    threads_[next_thread_++ % threads_.size()]->adopt(std::move(early_.front()));
    early_.pop_front();
  }
  if (stopping_ || draining_ || accept_paused_ || clients_ >= limit) return;
  for (const auto& acceptor : acceptors_) {
    if (acceptor->waiting) continue;
    acceptor->waiting = true;
    ring_->accept(acceptor->socket.fd.get(), *acceptor);
  }
}

void Server::on_accepted(Acceptor& acceptor, int result) {
  acceptor.waiting = false;
  UniqueFd socket(result >= 0 ? result : -1);
  if (stopping_) return;
  if (socket.valid() && !may_connect(acceptor, socket)) {
    ++metrics_.refused;
    socket.reset();
  } else if (socket.valid()) {
    if (acceptor.socket.tcp) set_tcp_options(socket.get());
    log_.detail(fmt::format("a client connected to {}", acceptor.socket.address),
                EntryFields().peer(peer_of(socket.get())));
    ++metrics_.accepted;
    early_.push_back(std::move(socket));
  } else if (result != -ECONNABORTED && result != -EINTR && result != -EAGAIN &&
             result != -ECANCELED) {
    log_.error(fmt::format("cannot accept a client: {}; trying again", strerror(-result)),
               EntryFields().system_error(-result));
    accept_paused_ = true;
    ring_->timeout(kAcceptPause, pause_time_, accept_pause_);
  }
  settle_when_none_is_accepted();
  accept_more();
}

bool Server::may_connect(const Acceptor& acceptor, const UniqueFd& client) {
  if (acceptor.socket.tcp) return true;
  const auto checked = check_peer(client.get(), config_.peers);
  if (!checked) {
    log_.warn(fmt::format("{}: {}", acceptor.socket.address, checked.error().message),
              EntryFields().peer(peer_of(client.get())));
  }
  return checked.has_value();
}

void Server::on_accept_pause(int) {
  accept_paused_ = false;
  accept_more();
}

void Server::on_signal(int result) {
  if (result > 0 && signal_.ssi_signo == SIGHUP && reload_) {
    reload_();
  } else if (result > 0) {
    log_.detail(
        fmt::format("signal {}: no new clients, answering what is under way", signal_.ssi_signo));
    stop();
  }
  ring_->read(signals_.get(), Ring::kNoOffset,
              MutableByteSpan(reinterpret_cast<std::byte*>(&signal_), sizeof(signal_)), signalled_);
}

void Server::on_tick(int) {
  ring_->timeout(limits::kChangeCheck, tick_time_, tick_);
  watchdog_.tick(limits::kChangeCheck);
  if (checking_files_) return;  // a file system that hangs must not pile up work
  checking_files_ = true;
  if (much_was_freed()) trims_left_ = kTrims;
  trim_ = trims_left_ > 0;
  if (trim_) --trims_left_;
  workers_.submit(check_task_, Urgency::kLong);
}

// A crowd of clients may have left: the heap would keep what they had for ever.
bool Server::much_was_freed() {
  most_clients_ = std::max(most_clients_, clients_);
  most_reply_memory_ = std::max(most_reply_memory_, reply_memory_.used());
  const bool all_have_left = clients_ == 0 && most_clients_ > 0;
  const bool much = all_have_left || most_clients_ - clients_ >= kFreedClients ||
                    most_reply_memory_ - reply_memory_.used() >= kFreedBytes;
  if (much) {
    most_clients_ = clients_;
    most_reply_memory_ = reply_memory_.used();
  }
  return much;
}

void Server::check_files() {
  if (trim_) (void)::malloc_trim(0);
  catalog_.check_unchanged();
  ring_->post(checked_task_);
}

void Server::files_checked() {
  checking_files_ = false;
  stop_when_empty();
}

void Server::session_ended(bool was_negotiated) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = ended_++ == 0;
    negotiated_ended_ = negotiated_ended_ || was_negotiated;
  }
  if (first) ring_->post(ended_task_);
}

void Server::take_ended() {
  unsigned ended = 0;
  bool negotiated = false;
  {
    const std::lock_guard lock(mutex_);
    ended = std::exchange(ended_, 0);
    negotiated = std::exchange(negotiated_ended_, false);
  }
  most_clients_ = std::max(most_clients_, clients_);
  clients_ -= ended;
  one_has_left_ = one_has_left_ || negotiated;
  stop_when_left();
  stop_when_empty();
  accept_more();
}

void Server::stop_when_left() {
  if (pausing_ != Pausing::kNo || clients_ > 0) return;
  const bool one_has_left = std::exchange(one_has_left_, false);
  if (draining_ || (one_has_left && !config_.persistent)) stop();
}

void Server::drain() {
  if (!draining_.exchange(true)) ring_->post(drain_task_);
}

void Server::begin_drain() {
  log_.note(fmt::format("no new clients: ending when the {} that there are have left", clients_));
  accept_no_more();
  accept_more();  // none: those that wait are turned away
  stop_when_left();
}

void Server::accept_no_more() {
  for (const auto& acceptor : acceptors_) {
    if (acceptor->waiting) ring_->cancel(*acceptor);
  }
}

void Server::memory_is_short() {
  for (const auto& thread : threads_) thread->close_unread();
}

// A ring that does not work takes its sessions with it, whose operations the kernel and the workers
// still hold: nothing of it can be destroyed in good order.
void Server::thread_failed(const Error& error) {
  log_.error(error.to_string(), EntryFields().error(error));
  std::_Exit(EXIT_FAILURE);
}

void Server::stop() {
  if (stopping_) return;
  stopping_ = true;
  manager_.stopping();
  if (handover_) handover_->give_up("the running server has been asked to end");
  accept_no_more();
  for (const auto& thread : threads_) thread->shut_down();
  ring_->timeout(limits::kHardShutdownTime, hard_time_, hard_shutdown_);
  stop_when_empty();
}

void Server::on_hard_shutdown(int) {
  log_.error("a file does not answer: ending without it");
  acceptors_.clear();  // removes the socket files
  handover_.reset();
  pid_file_.reset();
  std::_Exit(EXIT_FAILURE);
}

void Server::stop_when_empty() {
  const bool busy =
      checking_files_ || checking_exports_ || (handover_ && handover_->successor_settles());
  if (stopping_ && clients_ == 0 && !busy) ring_->stop();
}

}  // namespace underlay
