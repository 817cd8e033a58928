// One client's connection, from accept to close.
//
//   kHandshake --(GO)--> kTransmission --(DISC, end of stream, shutdown)--> kDraining --> kClosed
//        \____________________\________(error)_______________________________________/
//
// Input is parsed whenever nothing stands against it (blocked()), replies collect in the send
// queue, and one pump() after each round of completions moves everything on. A session that is
// blocked does not receive either, so that a client cannot make the server remember more than
// limits.h says.
//
// A session in transmission can be paused, so that another process may go on with it: it receives
// nothing more, finishes what it has begun, and then is still until resume() or hand_over().
//
// A session whose client is silent rests: it has given its memory back, and waits until there is
// something to receive.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "io/buffer_pool.h"
#include "io/log.h"
#include "io/ring.h"
#include "io/unique_fd.h"
#include "io/worker_pool.h"
#include "server/client_registry.h"
#include "server/cluster_read.h"
#include "server/entry_fields.h"
#include "server/export.h"
#include "server/export_lookup.h"
#include "server/handshake.h"
#include "server/held_requests.h"
#include "server/limits.h"
#include "server/metrics/request_metrics.h"
#include "server/read_ahead.h"
#include "server/read_operation.h"
#include "server/receive_buffers.h"
#include "server/reply.h"
#include "server/request.h"
#include "server/send_queue.h"
#include "server/session_state.h"
#include "server/tls/tls_channel.h"
#include "server/tls/tls_handshake.h"
#include "server/worker_operation.h"

namespace underlay {

class Session;

// What the sessions of one ring thread share.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual Ring& ring() = 0;
  virtual WorkerPool& workers() = 0;
  virtual BufferPool& buffers() = 0;
  virtual ReceiveBuffers& receive_buffers() = 0;
  virtual ExportCatalog& catalog() = 0;
  virtual ClientRegistry& clients() = 0;
  virtual Log& log() = 0;
  virtual HandshakeOffer offer() const = 0;
  // Null when offer().tls is kOff.
  virtual std::shared_ptr<const TlsCredentials> tls_credentials() const = 0;
  virtual OnError on_error() const = 0;
  // Requests that take longer are logged; zero: none are.
  virtual std::chrono::milliseconds slow_request() const = 0;
  // The session is over and may be destroyed, which ends its life in this call.
  virtual void session_ended(Session& session) = 0;
  // Reply memory is used up: time to drop clients that do not read their replies.
  virtual void memory_is_short() = 0;
  // A client speaks that was silent: ask rest_if_silent() from time to time until that is false.
  virtual void session_awake() = 0;
  // The handshake of a session is over, and transmission begins.
  virtual void handshake_ended() = 0;
  // After Session::pause(): it is still now...
  virtual void session_paused(Session& session) = 0;
  // ...or cannot be, and goes on as usual, because its client has said goodbye or does not read.
  virtual void session_stays(Session& session) = 0;
};

// Belongs to one ring thread, which calls all methods.
class Session final : private ReadOwner,
                      private ClusterReadOwner,
                      private WorkerOperationOwner,
                      private ExportLookupOwner,
                      private TlsHandshakeOwner,
                      private ReadAheadOwner {
 public:
  // `host` outlives the session.
  Session(SessionHost& host, UniqueFd socket);
  ~Session() override = default;

  // Greets the client. From now on the session lives until host.session_ended().
  void start();
  // Instead of start(): goes on with a session of another process.
  void adopt(SessionState state, std::shared_ptr<Export> exported);
  // Orderly end: what the client has asked for is answered, then the connection is closed. What it
  // asks for afterwards is not read any more, so nothing is answered with ESHUTDOWN.
  void shut_down();
  // Closes the connection as soon as nothing is under way any more.
  void close();
  // Closes it when the client has left replies unread for limits::kUnreadTime.
  void close_if_unread(std::chrono::steady_clock::time_point now);

  // Rests when the client has not spoken since the last call, and nothing is under way. Says
  // whether it is worth asking again.
  bool rest_if_silent();

  bool in_handshake() const { return phase_ == Phase::kHandshake; }
  // Calls host.session_paused() or host.session_stays() later, unless the session ends before.
  // REQUIRES: !in_handshake(); not paused, nor about to be.
  void pause();
  // Goes on, paused or about to be.
  void resume();
  // What another process needs to go on. The socket stays open until resume() or hand_over().
  // REQUIRES of both: paused.
  SessionState state() const;
  int socket() const { return socket_.get(); }
  // The session is over here, but the connection is not: another process has it. REQUIRES: paused.
  void hand_over();

  // Has the client ever finished the handshake?
  bool was_negotiated() const { return was_negotiated_; }

 private:
  enum class Phase : uint8_t { kHandshake, kTransmission, kDraining, kClosed };

  void arm_deadline();
  void pump();
  void schedule_pump();
  bool blocked() const;
  bool consume_input();
  void receive_more();
  void prepare_socket();
  void widen_socket();
  void flush();
  int64_t send_from_memory();
  int64_t send_from_file(const SendQueue::FilePart& file);
  void wait_to_send(bool for_file);
  void end_if_idle();
  void settle_pause();
  bool held_can_be_handed_over() const;
  bool all_is_answered() const;
  bool nothing_under_way() const;
  void stop_receiving();
  void rest();
  bool wake_up();

  // Handshake.
  bool consume_handshake();
  void send_handshake();
  void meet_need();
  void lookup_done() override;

  // Rules of the export (session_rules.cc).
  void take_export(const std::shared_ptr<Export>& found);
  bool admit(const Request& request);
  void on_admission(int result);

  // Encryption (session_tls.cc).
  bool waits_for_tls() const;
  void begin_tls();
  void tls_handshake_ended(Result<void> result) override;
  void receive_encrypted(MutableByteSpan room);
  int64_t send_encrypted();

  // Transmission.
  bool consume_transmission();
  bool consume_payload();
  bool handle(const Request& request);
  bool start_request(const Request& request);
  bool start_read(const Request& request);
  bool read_inline(const Request& request);
  bool find_parts(const Request& request);
  bool start_parts(const Request& request);
  void queue_parts(const Request& request, std::span<ReplyPart> parts, Buffer headers);
  void queue_part(ReplyPart& part);
  bool holes_allowed(const Request& request) const;
  bool reply_success(const Request& request);
  bool reply_error(const Request& request, nbd::WireError error);
  void reply_finished();
  bool reply_read(ReadOperation& operation);
  bool reply_read_data(ReadOperation& operation);
  bool reply_operation(const WorkerOperation& operation);
  bool reply_status(const WorkerOperation& operation);
  void log_failure(const Request& request, const Error& error);
  EntryFields log_fields() const;

  // Counting (session_metrics.cc).
  void count(const Request& request, bool succeeded);
  void count_late(const Request& request, bool succeeded);
  void begin_metrics();
  void publish_metrics();
  void end_metrics();
  uint64_t in_flight() const;

  ReadOperation& take_read_operation();
  void memory_wanted();

  // Requests that failed (session_hold.cc).
  bool leaving() const;
  bool ends_unanswered() const;
  bool hold(const Request& request, const Error& error);
  bool hold_of_changed(const Request& request);
  void note_held(const Request& request, std::string_view why, const LogFields& fields);
  void end_hold(const Request& request, bool succeeded);
  void start_held();
  void drop_held();
  void arm_hold_timer();

  void read_done(ReadOperation& operation) override;
  void clusters_unpacked(std::unique_ptr<ClusterRead> read) override;
  void operation_done(std::unique_ptr<WorkerOperation> operation) override;
  void read_ahead_ended() override { schedule_pump(); }
  void on_received(int result);
  void on_readable(int result);
  void on_sent(int result);
  void on_writable(int result);
  void on_deadline(int result);
  void on_retry(int result);
  void on_hold_timer(int result);

  ByteSpan input() const {
    return {receive_buffer_.get() + input_begin_, input_end_ - input_begin_};
  }

  SessionHost& host_;
  UniqueFd socket_;
  Phase phase_ = Phase::kHandshake;
  bool shutting_down_ = false;
  bool was_negotiated_ = false;
  enum class Pause : uint8_t { kNo, kWanted, kReached };
  Pause pause_ = Pause::kNo;
  unsigned outstanding_ = 0;  // completions and tasks that will still call this session

  Handshake handshake_;
  WireBuffer handshake_out_;
  ExportLookup lookup_;
  TlsHandshake tls_handshake_;
  std::unique_ptr<TlsChannel> tls_;  // from the moment that the client asks for it
  std::shared_ptr<Export> export_;

  ReceiveBuffers::Memory receive_buffer_;  // null: the session rests, or is new
  size_t input_begin_ = 0;
  size_t input_end_ = 0;
  bool receiving_ = false;      // into the buffer; without one, waiting for what is to be received
  bool heard_ = false;          // since the last rest_if_silent()
  bool resting_ = false;        // as soon as the receive has been cancelled
  bool input_ended_ = false;    // the client says no more
  bool request_waits_ = false;  // the request at the front of the input could not be started yet
  Request payload_request_;     // whose payload is being dropped
  uint64_t payload_left_ = 0;
  nbd::WireError payload_error_ = nbd::WireError::kNone;

  SendQueue queue_;
  msghdr message_{};
  bool sending_ = false;  // the ring sends, or waits until that is possible
  size_t turn_left_ = 0;  // bytes that flush() may send before others have their turn
  bool is_unix_socket_ = false;
  bool widened_ = false;
  std::chrono::steady_clock::time_point last_sent_;

  ZeroRuns inline_zeros_;           // of the read that read_inline() answers
  std::vector<ReplyPart> parts_;    // of the read that find_parts() looked at
  unsigned operations_ = 0;         // reads and worker operations that run
  uint64_t operation_bytes_ = 0;    // buffers of the reads
  unsigned worker_operations_ = 0;  // worker operations that have not been answered
  std::vector<ReadOperation*> finished_reads_;
  std::vector<std::unique_ptr<WorkerOperation>> finished_operations_;
  std::vector<std::unique_ptr<ReadOperation>> reads_;  // all that were ever needed
  std::vector<ReadOperation*> free_reads_;
  ReadAhead read_ahead_;

  RequestTally tally_;
  std::chrono::steady_clock::time_point received_at_;  // the last bytes of the client
  std::optional<std::chrono::steady_clock::time_point> waits_since_;  // the front request
  bool finishing_ = false;  // replies to what has taken a while
  uint64_t published_in_flight_ = 0;
  std::shared_ptr<ConnectedClient> client_;  // once it was_negotiated_

  bool entered_ = false;    // among the clients that are counted of the export
  bool admitted_ = false;   // the request at the front of the input, by the export's rate limit
  bool throttled_ = false;  // it waits for that
  __kernel_timespec admission_time_{};

  HeldRequests held_;
  bool hold_timer_armed_ = false;
  HeldRequests::Clock::time_point hold_timer_due_;
  __kernel_timespec hold_time_{};
  bool peer_ended_ = false;  // the client sends no more, which is not yet read

  bool pump_scheduled_ = false;
  bool memory_wanted_ = false;
  bool deadline_armed_ = false;
  __kernel_timespec deadline_time_{};
  __kernel_timespec retry_time_{};
  MethodTask<&Session::pump> pump_task_{*this};
  MethodCompletion<&Session::on_received> received_{*this};
  MethodCompletion<&Session::on_readable> readable_{*this};
  MethodCompletion<&Session::on_sent> sent_{*this};
  MethodCompletion<&Session::on_writable> writable_{*this};
  MethodCompletion<&Session::on_deadline> deadline_{*this};
  MethodCompletion<&Session::on_retry> retry_{*this};
  MethodCompletion<&Session::on_admission> admission_{*this};
  MethodCompletion<&Session::on_hold_timer> hold_timer_{*this};
};

}  // namespace underlay
