// One ring thread and the sessions on it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "io/buffer_pool.h"
#include "io/log.h"
#include "io/ring.h"
#include "io/worker_pool.h"
#include "server/export.h"
#include "server/session.h"

namespace underlay {

// What all serving threads share; outlives them.
struct ServingContext {
  WorkerPool& workers;
  ExportCatalog& catalog;
  ByteBudget& reply_memory;
  Log& log;
  HandshakeOffer offer;
};

// Who is told, on the serving thread, that a session is over, and how the thread itself ended.
class ServingOwner {
 public:
  virtual ~ServingOwner() = default;
  virtual void session_ended(bool was_negotiated) = 0;
  virtual void thread_failed(const Error& error) = 0;
  // Reply memory, which all threads share, is used up. Called often.
  virtual void memory_is_short() = 0;
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
  // Any thread: ends all sessions in an orderly way, after limits::kShutdownTime in any way.
  void shut_down();
  // Any thread, often: closes clients that do not read their replies.
  void close_unread();

 private:
  ServingThread(const ServingContext& context, ServingOwner& owner, std::unique_ptr<Ring> ring);
  void serve();
  void take_adopted();
  void begin_shutdown();
  void look_for_unread();
  void on_shutdown_deadline(int result);

  Ring& ring() override { return *ring_; }
  WorkerPool& workers() override { return context_.workers; }
  BufferPool& buffers() override { return buffers_; }
  ExportCatalog& catalog() override { return context_.catalog; }
  Log& log() override { return context_.log; }
  HandshakeOffer offer() const override { return context_.offer; }
  void session_ended(Session& session) override;
  void memory_is_short() override { owner_.memory_is_short(); }

  const ServingContext context_;
  ServingOwner& owner_;
  std::unique_ptr<Ring> ring_;
  BufferPool buffers_;
  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  bool shutting_down_ = false;
  std::chrono::steady_clock::time_point unread_checked_;
  __kernel_timespec shutdown_time_{};
  MethodTask<&ServingThread::take_adopted> adopt_task_{*this};
  MethodTask<&ServingThread::begin_shutdown> shutdown_task_{*this};
  std::atomic<bool> unread_posted_ = false;
  MethodTask<&ServingThread::look_for_unread> unread_task_{*this};
  MethodCompletion<&ServingThread::on_shutdown_deadline> shutdown_deadline_{*this};

  std::mutex mutex_;
  std::vector<UniqueFd> adopted_;  // under mutex_; not yet sessions

  std::thread thread_;
};

}  // namespace underlay
