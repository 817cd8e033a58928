// The running server's part of a hand-over: listens for a successor, one at a time, and leads the
// conversation of handover_message.h. What it hands over, and stopping the sessions, are its
// host's.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "io/log.h"
#include "io/ring.h"
#include "server/deadline.h"
#include "server/handover_socket.h"
#include "server/listen_sockets.h"

namespace underlay {

class HandoverHost {
 public:
  virtual ~HandoverHost() = default;
  // What the successor must be able to serve.
  virtual std::vector<ExportContent> exports_with_clients() = 0;
  // Brings all sessions to a standstill, then calls Handover::send_all().
  virtual void pause_all() = 0;
  // The hand-over is off, whatever had been reached since pause_all(): all goes on.
  virtual void resume_all() = 0;
  // Everything has arrived: looks once more whether the images are what they were, then calls
  // Handover::verified().
  virtual void verify() = 0;
  // The successor serves from now on. `pid_file`: the one that it will write to, zeros for none.
  virtual void released(FileIdentity pid_file) = 0;
  // Some time after released(): the successor has settled, or takes too long.
  virtual void successor_settled() = 0;
};

// Belongs to the thread of `ring`; outlives the ring's operations.
class Handover {
 public:
  // All outlive this.
  Handover(Ring& ring, HandoverHost& host, Log& log, ListenSocket socket);

  // Listens for a successor from now on.
  void start();
  // Something to hand over. The descriptor stays the caller's, open until released() or
  // resume_all().
  struct Item {
    handover::Message message;
    int descriptor = -1;
  };
  // Answers pause_all(): `items`, this object's own socket, and the inventory. No effect when the
  // hand-over has been given up meanwhile.
  void send_all(std::vector<Item> items);
  // Answers verify(): hands over, or gives up with the reason.
  void verified(const Result<void>& unchanged);
  // After released(): does the successor still put its pid file and sockets in order? A process
  // that sees this one end finds them so.
  bool successor_settles() const { return state_ == State::kReleased; }
  // Gives up a hand-over that is under way; nothing happens when there is none.
  void give_up(const std::string& reason);

 private:
  enum class State : uint8_t {
    kIdle,
    kGreeting,
    kOpening,
    kPausing,
    kSending,
    kVerifying,
    kReleased,
    kOver
  };

  void accept_more();
  void on_accepted(int result);
  void begin(UniqueFd peer);
  void receive_more();
  void on_received(int result);
  void take(const handover::Message& message);
  void send_more();
  void on_sent(int result);
  void on_time_up();
  void end_release();
  void end_conversation();
  void close_if_still();
  bool paused() const { return state_ >= State::kPausing && state_ < State::kReleased; }

  Ring& ring_;
  HandoverHost& host_;
  Log& log_;
  ListenSocket listener_;
  State state_ = State::kIdle;
  UniqueFd peer_;
  bool ending_ = false;  // the peer's descriptor is closed once nothing is under way on it
  bool receiving_ = false;
  bool sending_ = false;
  std::array<std::byte, 2048> input_;  // a successor's messages are short
  std::deque<std::unique_ptr<handover::Packet>> output_;
  FileIdentity successor_pid_file_;
  Deadline deadline_;
  MethodCompletion<&Handover::on_accepted> accepted_{*this};
  MethodCompletion<&Handover::on_received> received_{*this};
  MethodCompletion<&Handover::on_sent> sent_{*this};
};

}  // namespace underlay
