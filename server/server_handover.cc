// What the server hands over to its successor, and what it takes over from its predecessor.
#include <sys/socket.h>

#include "server/server.h"

namespace underlay {

using handover::Listener;

void Server::inherit(Inheritance inheritance) {
  for (ListenSocket& socket : inheritance.sockets) {
    acceptors_.push_back(std::make_unique<Acceptor>(*this, std::move(socket)));
  }
  for (UniqueFd& client : inheritance.waiting) early_.push_back(std::move(client));
  for (InheritedSession& session : inheritance.sessions) {
    ++clients_;
    threads_[next_thread_++ % threads_.size()]->inherit(std::move(session));
  }
}

void Server::listen_for_successor(ListenSocket socket) {
  HandoverHost& host = *this;
  handover_ = std::make_unique<Handover>(*ring_, host, log_, std::move(socket));
}

std::vector<ExportContent> Server::exports_with_clients() {
  std::vector<ExportContent> contents;
  for (const auto& entry : catalog_.with_clients()) contents.push_back(entry->content());
  return contents;
}

// First no client is accepted any more: who connects now waits for the successor.
void Server::pause_all() {
  pausing_ = Pausing::kAccepting;
  ++handover_number_;
  accept_no_more();
  settle_when_none_is_accepted();
}

void Server::settle_when_none_is_accepted() {
  if (pausing_ != Pausing::kAccepting) return;
  for (const auto& acceptor : acceptors_) {
    if (acceptor->waiting) return;
  }
  pausing_ = Pausing::kSettling;
  take_step(PauseStep::kSettle);
}

void Server::take_step(PauseStep step) {
  answers_taken_ = 0;
  for (const auto& thread : threads_) thread->take_step(step, handover_number_);
}

void Server::thread_answers(PauseAnswer answer) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = answers_.empty();
    answers_.push_back(std::move(answer));
  }
  if (first) ring_->post(answer_task_);
}

void Server::take_answers() {
  std::vector<PauseAnswer> answers;
  {
    const std::lock_guard lock(mutex_);
    answers = std::exchange(answers_, {});
  }
  for (PauseAnswer& answer : answers) {
    const PauseStep step = pausing_ == Pausing::kSettling ? PauseStep::kSettle : PauseStep::kPause;
    const bool awaited = pausing_ == Pausing::kSettling || pausing_ == Pausing::kPausing;
    if (!awaited || answer.handover != handover_number_ || answer.step != step) continue;
    for (PausedSession& session : answer.sessions) paused_.push_back(std::move(session));
    if (++answers_taken_ < threads_.size()) continue;
    if (step == PauseStep::kSettle) {
      pausing_ = Pausing::kPausing;
      take_step(PauseStep::kPause);
    } else {
      pausing_ = Pausing::kPaused;
      hand_over_all();
    }
  }
}

void Server::hand_over_all() {
  std::vector<Handover::Item> items;
  for (const auto& acceptor : acceptors_) {
    const ListenSocket& socket = acceptor->socket;
    items.push_back({.message = Listener{.whom = Listener::For::kClients,
                                         .tcp = socket.tcp,
                                         .address = socket.address,
                                         .path = socket.file.path(),
                                         .identity = socket.file.identity()},
                     .descriptor = socket.fd.get()});
  }
  for (const UniqueFd& client : early_) {
    items.push_back({.message = handover::Waiting{}, .descriptor = client.get()});
  }
  for (PausedSession& session : paused_) {
    items.push_back({.message = std::move(session.state), .descriptor = session.socket});
  }
  paused_.clear();
  handover_->send_all(std::move(items));
}

void Server::resume_all() {
  pausing_ = Pausing::kNo;
  paused_.clear();
  take_step(PauseStep::kResume);
  accept_more();
  stop_when_left();
}

void Server::verify() {
  if (checking_exports_) return handover_->verified(fail(ErrorKind::kIo, "a file does not answer"));
  checking_exports_ = true;
  workers_.submit(check_exports_task_, Urgency::kLong);
}

void Server::check_exports() {
  catalog_.check_unchanged();
  ring_->post(exports_checked_task_);
}

void Server::exports_checked() {
  checking_exports_ = false;
  Result<void> unchanged;
  for (const auto& entry : catalog_.with_clients()) {
    if (!entry->changed()) continue;
    unchanged =
        fail(ErrorKind::kIo, "the image of the export \"{}\" has changed since it was opened",
             printable(entry->name(), 80));
  }
  handover_->verified(unchanged);
  stop_when_empty();
}

void Server::released(FileIdentity pid_file) {
  log_.detail("the successor serves: ending");
  manager_.let_go();
  for (const auto& acceptor : acceptors_) acceptor->socket.file.let_go();
  if (pid_file_ && pid_file_->identity() == pid_file) pid_file_->let_go();
  early_.clear();
  take_step(PauseStep::kHandOver);
  stop();
}

}  // namespace underlay
