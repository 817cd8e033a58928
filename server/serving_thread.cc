#include "server/serving_thread.h"

#include "server/limits.h"

namespace underlay {

Result<std::unique_ptr<ServingThread>> ServingThread::create(const ServingContext& context,
                                                             ServingOwner& owner) {
  auto ring = TRY(Ring::create());
  ring->poll_before_sleep(context.poll);
  return std::unique_ptr<ServingThread>(new ServingThread(context, owner, std::move(ring)));
}

ServingThread::ServingThread(const ServingContext& context, ServingOwner& owner,
                             std::unique_ptr<Ring> ring)
    : context_(context),
      owner_(owner),
      ring_(std::move(ring)),
      buffers_(context.reply_memory),
      still_deadline_(*ring_, [this] { time_is_up(); }) {}

ServingThread::~ServingThread() {
  if (!thread_.joinable()) return;
  ring_->stop();
  thread_.join();
}

void ServingThread::start() {
  thread_ = std::thread([this] { serve(); });
}

void ServingThread::serve() {
  const Result<void> served = ring_->run();
  if (!served) owner_.thread_failed(served.error());
}

void ServingThread::adopt(UniqueFd socket) {
  {
    const std::lock_guard lock(mutex_);
    adopted_.push_back(std::move(socket));
    if (adopted_.size() + inherited_.size() > 1) return;  // the task is on its way
  }
  ring_->post(adopt_task_);
}

void ServingThread::inherit(InheritedSession session) {
  {
    const std::lock_guard lock(mutex_);
    inherited_.push_back(std::move(session));
    if (adopted_.size() + inherited_.size() > 1) return;  // the task is on its way
  }
  ring_->post(adopt_task_);
}

Session& ServingThread::add_session(UniqueFd socket) {
  SessionHost& host = *this;
  auto session = std::make_unique<Session>(host, std::move(socket));
  Session* added = session.get();
  sessions_.emplace(added, std::move(session));
  return *added;
}

void ServingThread::take_adopted() {
  std::vector<UniqueFd> sockets;
  std::vector<InheritedSession> inherited;
  {
    const std::lock_guard lock(mutex_);
    sockets = std::exchange(adopted_, {});
    inherited = std::exchange(inherited_, {});
  }
  for (InheritedSession& session : inherited) {
    Session& added = add_session(std::move(session.socket));
    added.adopt(std::move(session.state), std::move(session.exported));
    if (shutting_down_) added.shut_down();
  }
  for (UniqueFd& socket : sockets) {
    if (shutting_down_) {
      socket.reset();
      owner_.session_ended(false);
      continue;
    }
    add_session(std::move(socket)).start();
  }
}

void ServingThread::session_ended(Session& session) {
  const bool was_negotiated = session.was_negotiated();
  pausing_.erase(&session);
  std::erase(paused_, &session);
  sessions_.erase(&session);
  if (shutting_down_ && sessions_.empty()) ring_->cancel(shutdown_deadline_);
  owner_.session_ended(was_negotiated);
  check_settled();
  check_paused();
}

// One timer for all sessions, and none once all of them rest.
void ServingThread::session_awake() {
  if (std::exchange(checks_silence_, true)) return;
  ring_->timeout(limits::kSilence, silence_time_, silence_check_);
}

void ServingThread::on_silence_check(int) {
  checks_silence_ = false;
  bool again = false;
  for (const auto& [key, session] : sessions_) again = session->rest_if_silent() || again;
  if (again) session_awake();
}

void ServingThread::shut_down() { ring_->post(shutdown_task_); }

void ServingThread::begin_shutdown() {
  shutting_down_ = true;
  if (sessions_.empty()) return;
  ring_->timeout(limits::kShutdownTime, shutdown_time_, shutdown_deadline_);
  for (const auto& [key, session] : sessions_) session->shut_down();
}

void ServingThread::on_shutdown_deadline(int) {
  for (const auto& [key, session] : sessions_) session->close();
}

void ServingThread::close_unread() {
  if (!unread_posted_.exchange(true)) ring_->post(unread_task_);
}

void ServingThread::look_for_unread() {
  unread_posted_ = false;
  // Many sessions may ask at the same time; one look a second is enough.
  const auto now = std::chrono::steady_clock::now();
  if (now - unread_checked_ < std::chrono::seconds(1)) return;
  unread_checked_ = now;
  for (const auto& [key, session] : sessions_) session->close_if_unread(now);
}

}  // namespace underlay
