#include "server/handover.h"

#include <cerrno>
#include <cstring>

#include "server/limits.h"

namespace underlay {

using handover::Message;
using handover::Packet;

Handover::Handover(Ring& ring, HandoverHost& host, Log& log, ListenSocket socket)
    : ring_(ring), host_(host), log_(log), listener_(std::move(socket)), deadline_(ring, [this] {
        on_time_up();
      }) {}

void Handover::start() {
  // A socket that was taken over still names the process that opened it; now it names this one.
  if (::listen(listener_.fd.get(), SOMAXCONN) != 0) {
    log_.error(
        fmt::format("{}: cannot listen for a successor: {}", listener_.address, strerror(errno)));
  }
  accept_more();
}

void Handover::accept_more() { ring_.accept(listener_.fd.get(), accepted_); }

void Handover::on_accepted(int result) {
  UniqueFd peer(result >= 0 ? result : -1);
  if (state_ >= State::kReleased) return;
  if (peer.valid()) begin(std::move(peer));
  if (result >= 0 || result == -EINTR || result == -EAGAIN || result == -ECONNABORTED) {
    return accept_more();
  }
  log_.error(fmt::format("cannot accept a successor: {}: --handover is off", strerror(-result)));
}

void Handover::begin(UniqueFd peer) {
  const auto trusted = handover::trusted_peer(peer.get());
  const bool busy = state_ != State::kIdle;
  if (!trusted || busy) {
    const std::string reason =
        trusted ? "another successor is being handed over to" : trusted.error().to_string();
    log_.warn(fmt::format("a successor is refused: {}", reason));
    (void)handover::send_now(peer.get(), handover::Refused{reason});
    return;
  }
  log_.detail(fmt::format("process {} asks to take over", *trusted));
  state_ = State::kGreeting;
  peer_ = std::move(peer);
  deadline_.set(limits::kHandoverTransfer);
  receive_more();
}

void Handover::receive_more() {
  receiving_ = true;
  ring_.receive(peer_.get(), input_, received_);
}

void Handover::on_received(int result) {
  receiving_ = false;
  if (ending_) return close_if_still();
  if (state_ >= State::kReleased) return end_release();
  if (result == -EINTR || result == -EAGAIN) return receive_more();
  if (result < 0) return give_up(fmt::format("cannot hear the successor: {}", strerror(-result)));
  // A message that fills the buffer may have been cut; none that a successor says is so long.
  const auto message = handover::understand(input_, static_cast<size_t>(result));
  if (!message) return give_up(message.error().message);
  take(*message);
  if (peer_.valid() && !ending_) receive_more();
}

void Handover::take(const Message& message) {
  if (const auto* refused = std::get_if<handover::Refused>(&message)) {
    return give_up(fmt::format("the successor says: {}", printable(refused->reason)));
  }
  if (state_ == State::kGreeting && std::holds_alternative<handover::Hello>(message)) {
    state_ = State::kOpening;
    deadline_.set(limits::kSuccessorOpens);
    for (const ExportContent& content : host_.exports_with_clients()) {
      output_.push_back(std::make_unique<Packet>(handover::ExportInUse{content}, -1));
    }
    output_.push_back(std::make_unique<Packet>(handover::ExportsEnd{}, -1));
    return send_more();
  }
  if (state_ == State::kOpening && output_.empty() &&
      std::holds_alternative<handover::Ready>(message)) {
    state_ = State::kPausing;
    deadline_.set(limits::kHandoverSettle + limits::kHandoverPause + limits::kHandoverTransfer);
    return host_.pause_all();
  }
  const auto* taken = std::get_if<handover::Taken>(&message);
  if (state_ == State::kSending && output_.empty() && taken != nullptr) {
    state_ = State::kVerifying;
    successor_pid_file_ = taken->pid_file;
    return host_.verify();
  }
  give_up("the successor says something that has no place there");
}

void Handover::send_all(std::vector<Item> items) {
  if (state_ != State::kPausing || ending_) return;
  state_ = State::kSending;
  deadline_.set(limits::kHandoverTransfer);
  handover::Inventory inventory;
  inventory.listeners = 1;
  for (const Item& item : items) {
    if (std::holds_alternative<handover::Listener>(item.message)) ++inventory.listeners;
    if (std::holds_alternative<handover::Waiting>(item.message)) ++inventory.waiting;
    if (std::holds_alternative<SessionState>(item.message)) ++inventory.sessions;
    output_.push_back(std::make_unique<Packet>(item.message, item.descriptor));
  }
  const Message own = handover::Listener{.whom = handover::Listener::For::kSuccessors,
                                         .tcp = false,
                                         .address = listener_.address,
                                         .path = listener_.file.path(),
                                         .identity = listener_.file.identity()};
  output_.push_back(std::make_unique<Packet>(own, listener_.fd.get()));
  output_.push_back(std::make_unique<Packet>(inventory, -1));
  send_more();
}

void Handover::send_more() {
  if (sending_ || output_.empty()) return;
  sending_ = true;
  ring_.send(peer_.get(), output_.front()->header(), sent_);
}

void Handover::on_sent(int result) {
  sending_ = false;
  if (ending_) return close_if_still();
  if (result < 0 && result != -EINTR && result != -EAGAIN) {
    return give_up(fmt::format("cannot send to the successor: {}", strerror(-result)));
  }
  if (result >= 0) output_.pop_front();
  send_more();
}

void Handover::on_time_up() {
  if (state_ == State::kReleased) return end_release();
  give_up("the successor is too slow");
}

void Handover::end_release() {
  if (state_ != State::kReleased) return;
  state_ = State::kOver;
  deadline_.lift();
  host_.successor_settled();
}

void Handover::verified(const Result<void>& unchanged) {
  if (state_ != State::kVerifying || ending_) return;
  if (!unchanged) return give_up(unchanged.error().to_string());
  // If the successor has died meanwhile, this fails. Once it is said, it is true.
  if (const auto said = handover::send_now(peer_.get(), handover::Released{}); !said) {
    return give_up(said.error().to_string());
  }
  state_ = State::kReleased;
  deadline_.set(limits::kHandoverTransfer);
  listener_.file.let_go();
  ring_.cancel(accepted_);
  host_.released(successor_pid_file_);
}

void Handover::give_up(const std::string& reason) {
  if (state_ == State::kIdle || state_ >= State::kReleased || ending_) return;
  log_.warn(fmt::format("the hand-over is off, serving goes on: {}", reason));
  const bool was_paused = paused();
  end_conversation();
  (void)handover::send_now(peer_.get(), handover::Refused{reason});
  if (was_paused) host_.resume_all();
  close_if_still();
}

void Handover::end_conversation() {
  ending_ = true;
  deadline_.lift();
  if (receiving_) ring_.cancel(received_);
  if (sending_) ring_.cancel(sent_);
}

void Handover::close_if_still() {
  if (receiving_ || sending_) return;
  output_.clear();
  peer_.reset();
  ending_ = false;
  state_ = State::kIdle;
}

}  // namespace underlay
