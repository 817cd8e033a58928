// The server: accepts clients, spreads them over the ring threads, and ends in good order.
#pragma once

#include <sys/signalfd.h>

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "io/log.h"
#include "io/ring.h"
#include "io/unique_fd.h"
#include "io/worker_pool.h"
#include "server/export.h"
#include "server/listen_sockets.h"
#include "server/serving_thread.h"

namespace underlay {

struct ServerConfig {
  unsigned threads = 1;      // rings
  unsigned workers = 1;      // threads for what may block or burn CPU
  unsigned max_clients = 1;  // at the same time; others wait. 0 = limits::kConnections
  bool persistent = false;   // go on when the last client has left
  bool allocation_depth = false;
};

class Server final : private ServingOwner {
 public:
  // Takes SIGTERM, SIGINT and SIGHUP for itself. `catalog` and `log` outlive the server. Call it
  // before any other thread is started.
  static Result<std::unique_ptr<Server>> create(const ServerConfig& config, ExportCatalog& catalog,
                                                std::vector<ListenSocket> sockets, Log& log);
  // Before run(): a client that is connected already. It counts for max_clients.
  void adopt(UniqueFd client) { early_.push_back(std::move(client)); }

  // Serves until a signal asks to stop, or the last client has left and the server is not
  // persistent. Ends the process when the system does not let it go on.
  void run();

 private:
  // A listening socket and the accept that waits on it.
  struct Acceptor final : Completion {
    Acceptor(Server& owner, ListenSocket listening) : server(owner), socket(std::move(listening)) {}
    void complete(int result) override { server.on_accepted(*this, result); }

    Server& server;
    ListenSocket socket;
    bool waiting = false;
  };

  Server(const ServerConfig& config, ExportCatalog& catalog, Log& log, std::unique_ptr<Ring> ring);
  void accept_more();
  void on_accepted(Acceptor& acceptor, int result);
  void on_accept_pause(int result);
  void on_signal(int result);
  void on_tick(int result);
  void check_files();
  void files_checked();
  void take_ended();
  void stop();
  void stop_when_empty();
  void on_hard_shutdown(int result);

  void session_ended(bool was_negotiated) override;
  [[noreturn]] void thread_failed(const Error& error) override;
  void memory_is_short() override;

  const ServerConfig config_;
  ExportCatalog& catalog_;
  Log& log_;
  ByteBudget reply_memory_;
  // Destroyed in reverse: the workers, which post to the rings, end before these do.
  std::unique_ptr<Ring> ring_;
  std::vector<std::unique_ptr<ServingThread>> threads_;
  WorkerPool workers_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  size_t next_thread_ = 0;
  unsigned clients_ = 0;
  std::deque<UniqueFd> early_;  // adopted, or accepted on several sockets beyond -e: they wait
  bool stopping_ = false;
  bool accept_paused_ = false;
  bool checking_files_ = false;

  UniqueFd signals_;
  signalfd_siginfo signal_{};
  __kernel_timespec pause_time_{};
  __kernel_timespec tick_time_{};
  MethodCompletion<&Server::on_signal> signalled_{*this};
  MethodCompletion<&Server::on_accept_pause> accept_pause_{*this};
  __kernel_timespec hard_time_{};
  MethodCompletion<&Server::on_tick> tick_{*this};
  MethodCompletion<&Server::on_hard_shutdown> hard_shutdown_{*this};
  MethodTask<&Server::check_files> check_task_{*this};
  MethodTask<&Server::files_checked> checked_task_{*this};
  MethodTask<&Server::take_ended> ended_task_{*this};

  std::mutex mutex_;
  unsigned ended_ = 0;             // under mutex_: sessions that have ended, not yet counted
  bool negotiated_ended_ = false;  // under mutex_: one of them had finished its handshake
};

}  // namespace underlay
