// The server: accepts clients, spreads them over the ring threads, and ends in good order.
#pragma once

#include <sys/signalfd.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "io/log.h"
#include "io/ring.h"
#include "io/unique_fd.h"
#include "io/worker_pool.h"
#include "server/client_registry.h"
#include "server/daemon.h"
#include "server/export.h"
#include "server/handover.h"
#include "server/listen_sockets.h"
#include "server/metrics/server_metrics.h"
#include "server/peer_rules.h"
#include "server/service_manager.h"
#include "server/serving_thread.h"
#include "server/tls/current_credentials.h"
#include "server/watchdog.h"

namespace underlay {

struct ServerConfig {
  unsigned threads = 1;       // rings
  unsigned workers = 1;       // threads for what may block or burn CPU
  unsigned near_workers = 1;  // those of them that wait for no other machine
  unsigned max_clients = 1;   // at the same time; others wait. 0 = limits::kConnections
  bool persistent = false;    // go on when the last client has left
  bool allocation_depth = false;
  OnError on_error = OnError::kEio;
  std::chrono::microseconds poll{};          // how long a ring looks for work before it sleeps
  std::chrono::milliseconds slow_request{};  // those that take longer are logged; zero: none
  PeerRules peers{};                         // of Unix sockets
  TlsMode tls = TlsMode::kOff;
};

// What a server takes over from the one before it.
struct Inheritance {
  std::vector<ListenSocket> sockets;
  std::vector<ListenSocket> for_successor;  // where the next successor comes to: at most one
  std::vector<UniqueFd> waiting;            // clients that have connected and were not greeted
  std::vector<InheritedSession> sessions;
};

class Server final : private ServingOwner, private HandoverHost {
 public:
  // Takes SIGTERM, SIGINT and SIGHUP for itself. `catalog`, `credentials` (some, unless config.tls
  // is kOff), `log` and `manager` outlive the server. Call it before any other thread is started.
  // The server starts its own threads in run(): until then, the process may take rights from
  // itself.
  static Result<std::unique_ptr<Server>> create(const ServerConfig& config, ExportCatalog& catalog,
                                                const CurrentCredentials& credentials, Log& log,
                                                ServiceManager& manager);
  // All of these only before run().
  // Serves the clients that come to these sockets, and those of another process, which serves them
  // no longer.
  void inherit(Inheritance inheritance);
  // Listens there for a successor, to which all is handed over; run() returns then.
  void listen_for_successor(ListenSocket socket);
  // Keeps the file until the server ends, or leaves it to a successor that writes to it.
  void hold(PidFile pid_file) { pid_file_.emplace(std::move(pid_file)); }
  // Readable once a signal asks the server to stop.
  int signal_fd() const { return signals_.get(); }
  // A client that is connected already. It counts for max_clients.
  void adopt(UniqueFd client) { early_.push_back(std::move(client)); }
  // SIGHUP calls this, which must not block, on the thread of run(), instead of ending the server.
  void on_hangup(std::function<void()> reload) { reload_ = std::move(reload); }

  // Serves until a signal asks to stop, or the last client has left and the server is not
  // persistent. Ends the process when the system does not let it go on.
  void run();

  // These, from any thread.
  // Accepts no more clients, and ends when the last has left.
  void drain();
  bool draining() const { return draining_; }
  const ServerMetrics& metrics() const { return metrics_; }
  ClientRegistry& clients() { return registry_; }

 private:
  // A listening socket and the accept that waits on it.
  struct Acceptor final : Completion {
    Acceptor(Server& owner, ListenSocket listening) : server(owner), socket(std::move(listening)) {}
    void complete(int result) override { server.on_accepted(*this, result); }

    Server& server;
    ListenSocket socket;
    bool waiting = false;
  };

  Server(const ServerConfig& config, ExportCatalog& catalog, Log& log, ServiceManager& manager,
         std::unique_ptr<Ring> ring);
  void accept_more();
  void on_accepted(Acceptor& acceptor, int result);
  bool may_connect(const Acceptor& acceptor, const UniqueFd& client);
  void on_accept_pause(int result);
  void on_signal(int result);
  void on_tick(int result);
  bool much_was_freed();
  void check_files();
  void files_checked();
  void take_ended();
  void stop();
  void stop_when_empty();
  void stop_when_left();
  void begin_drain();
  void accept_no_more();
  void on_hard_shutdown(int result);

  // Handing over.
  std::vector<ExportContent> exports_with_clients() override;
  void pause_all() override;
  void resume_all() override;
  void verify() override;
  void released(FileIdentity pid_file) override;
  void successor_settled() override { stop_when_empty(); }
  void settle_when_none_is_accepted();
  void take_step(PauseStep step);
  void take_answers();
  void hand_over_all();
  void check_exports();
  void exports_checked();
  void thread_answers(PauseAnswer answer) override;

  void session_ended(bool was_negotiated) override;
  [[noreturn]] void thread_failed(const Error& error) override;
  void memory_is_short() override;

  const ServerConfig config_;
  ExportCatalog& catalog_;
  Log& log_;
  ServiceManager& manager_;
  ByteBudget reply_memory_;
  std::optional<PidFile> pid_file_;
  std::function<void()> reload_;  // none: SIGHUP ends the server
  ClientRegistry registry_;
  std::unique_ptr<Handover> handover_;  // without --handover: none
  // Destroyed in reverse: the workers, which post to the rings, end before these do.
  std::unique_ptr<Ring> ring_;
  std::vector<std::unique_ptr<ServingThread>> threads_;
  Watchdog watchdog_{manager_, threads_};
  WorkerPool workers_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  size_t next_thread_ = 0;
  unsigned clients_ = 0;
  ServerMetrics metrics_;
  bool one_has_left_ = false;   // of those that had finished their handshake, since there were none
  std::deque<UniqueFd> early_;  // adopted, or accepted on several sockets beyond -e: they wait
  bool stopping_ = false;
  std::atomic<bool> draining_ = false;
  bool accept_paused_ = false;
  bool checking_files_ = false;
  bool trim_ = false;  // what check_files() shall do besides
  int trims_left_ = 0;
  // The most since memory was given back.
  unsigned most_clients_ = 0;
  uint64_t most_reply_memory_ = 0;
  bool checking_exports_ = false;

  enum class Pausing : uint8_t { kNo, kAccepting, kSettling, kPausing, kPaused };
  Pausing pausing_ = Pausing::kNo;
  uint64_t handover_number_ = 0;  // tells late answers of the threads from those that count
  size_t answers_taken_ = 0;      // threads that are done with the step at hand
  std::vector<PausedSession> paused_;

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
  MethodTask<&Server::begin_drain> drain_task_{*this};
  MethodTask<&Server::take_answers> answer_task_{*this};
  MethodTask<&Server::check_exports> check_exports_task_{*this};
  MethodTask<&Server::exports_checked> exports_checked_task_{*this};

  std::mutex mutex_;
  unsigned ended_ = 0;                // under mutex_: sessions that have ended, not yet counted
  std::vector<PauseAnswer> answers_;  // under mutex_
  bool negotiated_ended_ = false;     // under mutex_: one of them had finished its handshake
};

}  // namespace underlay
