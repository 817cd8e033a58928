// What a session tells of its requests to those who watch the server.
#include <utility>

#include "server/session.h"

namespace underlay {
namespace {

// To a counter that no other thread writes.
void add_alone(std::atomic<uint64_t>& counter, uint64_t value) {
  counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

}  // namespace

// A reply to `request` has been queued. Who wants to know the slow ones pays for a look at the
// clock for each.
void Session::count(const Request& request, bool succeeded) {
  const bool each = host_.slow_request().count() != 0;
  if (finishing_ || request.tries > 0 || each) return count_late(request, succeeded);
  tally_.answered(request, succeeded);
}

// The same of one that was not answered at once.
void Session::count_late(const Request& request, bool succeeded) {
  const auto latency = std::chrono::steady_clock::now() - request.received;
  tally_.answered_late(request, succeeded, latency);
  if (host_.slow_request().count() == 0 || latency < host_.slow_request()) return;
  using Milliseconds = std::chrono::duration<double, std::milli>;
  host_.log().warn(
      fmt::format("slow: export \"{}\": command {}, {} bytes at offset {}: {:.1f} ms",
                  printable(export_->name(), 80), static_cast<unsigned>(request.command),
                  request.length, request.offset, Milliseconds(latency).count()),
      log_fields().request(request).duration(latency));
}

void Session::begin_metrics() {
  if (!std::exchange(entered_, true)) (void)export_->metrics().enter(0);  // of another process
  export_->client_came();
  client_ = host_.clients().enter(peer_of(socket_.get()), export_->name(), tls_ != nullptr);
}

// Requests that wait for a disk, a worker, or another try.
uint64_t Session::in_flight() const {
  return operations_ + finished_reads_.size() + finished_operations_.size() + held_.size();
}

// Once for each turn of the session, however many requests it answered.
void Session::publish_metrics() {
  if (!was_negotiated_) return;
  RequestMetrics& metrics = export_->metrics().requests;
  const uint64_t waiting = in_flight();
  if (waiting != published_in_flight_) {
    metrics.change_in_flight(static_cast<int64_t>(waiting - published_in_flight_));
    published_in_flight_ = waiting;
  }
  // Mostly flush() has just looked at the clock.
  if (tally_.has_new()) {
    const auto now = last_sent_ > received_at_ ? last_sent_ : std::chrono::steady_clock::now();
    tally_.answered_now(now - received_at_);
  }
  if (tally_.empty()) return;
  add_alone(client_->reads, tally_.reads());
  add_alone(client_->read_bytes, tally_.read_bytes());
  metrics.publish(tally_);
}

void Session::end_metrics() {
  if (!was_negotiated_) return;
  publish_metrics();
  // Of those that were never answered.
  export_->metrics().requests.change_in_flight(-static_cast<int64_t>(published_in_flight_));
  export_->metrics().leave();
  export_->client_left();
  host_.clients().leave(*client_);
}

}  // namespace underlay
