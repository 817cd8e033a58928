// One ring thread and the sessions on it.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "io/buffer_pool.h"
#include "io/log.h"
#include "io/ring.h"
#include "io/worker_pool.h"
#include "server/deadline.h"
#include "server/export.h"
#include "server/session.h"
#include "server/tls/current_credentials.h"

namespace underlay {

// What all serving threads share; outlives them.
struct ServingContext {
  WorkerPool& workers;
  ExportCatalog& catalog;
  ClientRegistry& clients;
  ByteBudget& reply_memory;
  Log& log;
  HandshakeOffer offer;
  const CurrentCredentials& tls_credentials;
  OnError on_error{};
  std::chrono::microseconds poll{};  // Ring::poll_before_sleep()
  std::chrono::milliseconds slow_request{};
};

// A client of another process, which serves it no longer.
struct InheritedSession {
  UniqueFd socket;
  SessionState state;
  std::shared_ptr<Export> exported;
};

// A client that waits for another process to serve it.
struct PausedSession {
  int socket = -1;  // open until PauseStep::kResume or kHandOver
  SessionState state;
};

// How a hand-over brings the sessions of a thread to a standstill.
enum class PauseStep : uint8_t {
  kSettle,    // wait until no session is in its handshake, or the time is up; sessions go on
  kPause,     // then pause those in transmission; who does not come to rest in time goes on
  kResume,    // at any time: all go on
  kHandOver,  // after kPause: those that are paused end here, another process has them now
};

// What a thread says when it is done with kSettle or kPause.
struct PauseAnswer {
  uint64_t handover = 0;  // its number
  PauseStep step{};
  std::vector<PausedSession> sessions;  // after kPause
};

// Who is told, on the serving thread, that a session is over, and how the thread itself ended.
class ServingOwner {
 public:
  virtual ~ServingOwner() = default;
  virtual void session_ended(bool was_negotiated) = 0;
  virtual void thread_failed(const Error& error) = 0;
  // Reply memory, which all threads share, is used up. Called often.
  virtual void memory_is_short() = 0;
  // After Step::kSettle and Step::kPause of the hand-over `number`.
  virtual void thread_answers(PauseAnswer answer) = 0;
};

class ServingThread final : private SessionHost {
 public:
  // `owner` and what `context` refers to outlive the thread.
  static Result<std::unique_ptr<ServingThread>> create(const ServingContext& context,
                                                       ServingOwner& owner);
  // REQUIRES: no session is left, or start() was never called.
  ~ServingThread() override;

  void start();
  // Any thread: serves a client that has connected.
  void adopt(UniqueFd socket);
  // Any thread: goes on with a session of another process.
  void inherit(InheritedSession session);
  // Any thread: ends all sessions in an orderly way, after limits::kShutdownTime in any way.
  void shut_down();
  // Any thread, often: closes clients that do not read their replies.
  void close_unread();
  // Any thread: runs `question` on this one, if that still answers.
  void ask(Task& question) { ring_->post(question); }

  // Any thread: a step of the hand-over `number`, each but kResume once the owner has heard of the
  // one before. No client is adopted between kSettle and kResume or kHandOver.
  void take_step(PauseStep step, uint64_t number);

 private:
  ServingThread(const ServingContext& context, ServingOwner& owner, std::unique_ptr<Ring> ring);
  void serve();
  void take_adopted();
  Session& add_session(UniqueFd socket);
  void begin_shutdown();
  void look_for_unread();
  void on_silence_check(int result);
  void take_steps();
  void begin_settle();
  void check_settled();
  void begin_pause();
  void check_paused();
  void time_is_up();
  void end_pause();
  void end_settle();
  void resume_sessions();
  void hand_over_sessions();
  void on_shutdown_deadline(int result);

  Ring& ring() override { return *ring_; }
  WorkerPool& workers() override { return context_.workers; }
  BufferPool& buffers() override { return buffers_; }
  ReceiveBuffers& receive_buffers() override { return receive_buffers_; }
  ExportCatalog& catalog() override { return context_.catalog; }
  ClientRegistry& clients() override { return context_.clients; }
  Log& log() override { return context_.log; }
  HandshakeOffer offer() const override { return context_.offer; }
  std::shared_ptr<const TlsCredentials> tls_credentials() const override {
    return context_.tls_credentials.get();
  }
  OnError on_error() const override { return context_.on_error; }
  std::chrono::milliseconds slow_request() const override { return context_.slow_request; }
  void session_ended(Session& session) override;
  void memory_is_short() override { owner_.memory_is_short(); }
  void session_awake() override;
  void handshake_ended() override { check_settled(); }
  void session_paused(Session& session) override;
  void session_stays(Session& session) override;

  const ServingContext context_;
  ServingOwner& owner_;
  std::unique_ptr<Ring> ring_;
  BufferPool buffers_;
  ReceiveBuffers receive_buffers_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  bool shutting_down_ = false;
  bool checks_silence_ = false;  // a check is to come, because some session does not rest
  __kernel_timespec silence_time_{};
  MethodCompletion<&ServingThread::on_silence_check> silence_check_{*this};
  std::chrono::steady_clock::time_point unread_checked_;
  __kernel_timespec shutdown_time_{};
  MethodTask<&ServingThread::take_adopted> adopt_task_{*this};
  MethodTask<&ServingThread::begin_shutdown> shutdown_task_{*this};
  std::atomic<bool> unread_posted_ = false;
  MethodTask<&ServingThread::look_for_unread> unread_task_{*this};
  MethodCompletion<&ServingThread::on_shutdown_deadline> shutdown_deadline_{*this};

  enum class Still : uint8_t { kNo, kSettling, kSettled, kPausing, kPaused };
  Still still_ = Still::kNo;
  std::unordered_set<Session*> pausing_;  // asked to pause, not paused yet
  std::vector<Session*> paused_;
  Deadline still_deadline_;
  uint64_t handover_ = 0;  // the number of the one that still_ belongs to
  MethodTask<&ServingThread::take_steps> step_task_{*this};

  std::mutex mutex_;
  std::vector<UniqueFd> adopted_;            // under mutex_; not yet sessions
  std::vector<InheritedSession> inherited_;  // the same
  struct Step {
    PauseStep step{};
    uint64_t handover = 0;
  };
  std::vector<Step> steps_;  // under mutex_; not yet taken

  std::thread thread_;
};

}  // namespace underlay
