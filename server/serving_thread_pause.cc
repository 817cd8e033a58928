// The sessions of a thread on their way to another process.
#include <algorithm>

#include "server/limits.h"
#include "server/serving_thread.h"

namespace underlay {

void ServingThread::take_step(PauseStep step, uint64_t number) {
  {
    const std::lock_guard lock(mutex_);
    steps_.push_back({.step = step, .handover = number});
    if (steps_.size() > 1) return;  // the task is on its way
  }
  ring_->post(step_task_);
}

void ServingThread::take_steps() {
  std::vector<Step> steps;
  {
    const std::lock_guard lock(mutex_);
    steps = std::exchange(steps_, {});
  }
  for (const Step& step : steps) {
    handover_ = step.handover;
    switch (step.step) {
      case PauseStep::kSettle:
        begin_settle();
        break;
      case PauseStep::kPause:
        begin_pause();
        break;
      case PauseStep::kResume:
        resume_sessions();
        break;
      case PauseStep::kHandOver:
        hand_over_sessions();
        break;
    }
  }
}

void ServingThread::begin_settle() {
  still_ = Still::kSettling;
  still_deadline_.set(limits::kHandoverSettle);
  check_settled();
}

void ServingThread::check_settled() {
  if (still_ != Still::kSettling) return;
  const bool settled = std::none_of(sessions_.begin(), sessions_.end(),
                                    [](const auto& entry) { return entry.first->in_handshake(); });
  if (settled) end_settle();
}

void ServingThread::end_settle() {
  still_ = Still::kSettled;
  still_deadline_.lift();
  owner_.thread_answers({.handover = handover_, .step = PauseStep::kSettle, .sessions = {}});
}

void ServingThread::begin_pause() {
  still_ = Still::kPausing;
  still_deadline_.set(limits::kHandoverPause);
  std::vector<Session*> wanted;
  for (const auto& [session, owned] : sessions_) {
    if (!session->in_handshake()) wanted.push_back(session);
  }
  pausing_.insert(wanted.begin(), wanted.end());
  for (Session* session : wanted) session->pause();
  check_paused();
}

void ServingThread::session_paused(Session& session) {
  pausing_.erase(&session);
  paused_.push_back(&session);
  check_paused();
}

void ServingThread::session_stays(Session& session) {
  pausing_.erase(&session);
  check_paused();
}

void ServingThread::check_paused() {
  if (still_ == Still::kPausing && pausing_.empty()) end_pause();
}

void ServingThread::time_is_up() {
  if (still_ == Still::kSettling) return end_settle();
  if (still_ != Still::kPausing) return;
  log().warn(fmt::format("{} clients do not let their replies be finished: they stay behind",
                         pausing_.size()));
  for (Session* session : pausing_) session->resume();
  pausing_.clear();
  end_pause();
}

void ServingThread::end_pause() {
  still_ = Still::kPaused;
  still_deadline_.lift();
  std::vector<PausedSession> sessions;
  for (const Session* session : paused_) {
    sessions.push_back({.socket = session->socket(), .state = session->state()});
  }
  owner_.thread_answers(
      {.handover = handover_, .step = PauseStep::kPause, .sessions = std::move(sessions)});
}

void ServingThread::resume_sessions() {
  still_ = Still::kNo;
  still_deadline_.lift();
  for (Session* session : std::exchange(pausing_, {})) session->resume();
  for (Session* session : std::exchange(paused_, {})) session->resume();
}

void ServingThread::hand_over_sessions() {
  still_ = Still::kNo;
  for (Session* session : std::exchange(paused_, {})) session->hand_over();
}

}  // namespace underlay
