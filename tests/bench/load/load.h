// The load itself: keeps `depth` reads under way, and measures. Nothing is allocated on the way.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "io/error.h"
#include "tests/bench/load/connection.h"
#include "tests/bench/load/discard.h"
#include "tests/bench/load/latency_histogram.h"
#include "tests/bench/load/offsets.h"
#include "tests/bench/load/raw_image.h"
#include "tests/bench/load/replies.h"
#include "tests/bench/load/settings.h"

namespace underlay::bench {

// One thread. The settings must live as long as the load.
class Load {
 public:
  // Connects as often as the settings say.
  static Result<std::unique_ptr<Load>> make(const Settings& settings);

  // REQUIRES: called once.
  Result<void> run();
  // One line of JSON.
  std::string report() const;

 private:
  using Clock = std::chrono::steady_clock;

  struct Slot {
    uint64_t offset = 0;
    Clock::time_point sent;
    bool under_way = false;
  };
  // A connection and the slots that are asked for through it.
  struct Link {
    Connection connection;
    Replies replies;
    size_t first_slot;
    size_t slots;
    std::vector<std::byte> requests;  // built, not yet sent; holds one for each slot
    size_t requests_bytes = 0;
  };

  Load(const Settings& settings, RawImage raw, Offsets offsets)
      : settings_(settings), raw_(std::move(raw)), offsets_(offsets), input_(kReceiveBytes) {}
  void add_link(Connection connection, size_t slots);
  Result<void> watch_links();

  Result<void> wait_and_receive();
  Result<void> receive(Link& link);
  Result<void> receive_discarding(Link& link);
  Result<void> take(Link& link, const Replies::Piece& piece, Clock::time_point now);
  bool wants_more(Clock::time_point now) const;
  Result<void> ask(Link& link, size_t index);
  Result<void> flush(Link& link);

  // Large enough for many replies, small enough to stay in a core's second-level cache.
  static constexpr size_t kReceiveBytes = 256 << 10;

  const Settings& settings_;
  RawImage raw_;
  Offsets offsets_;
  std::vector<Link> links_;
  std::vector<Slot> slots_;
  std::vector<std::byte> input_;
  std::optional<Discard> discard_;  // with --discard
  UniqueFd epoll_;                  // only with several links
  size_t under_way_ = 0;
  uint64_t asked_ = 0;
  LatencyHistogram latencies_;
  Clock::time_point end_;
  double elapsed_ = 0;
  double cpu_seconds_ = 0;
};

}  // namespace underlay::bench
