// Reads of a disk, many at a time, each of them timed.
#pragma once

#include <chrono>
#include <optional>

#include "formats/disk.h"
#include "tools/img/latency_histogram.h"

namespace underlay::img {

struct TimedReads {
  uint64_t count = 0;
  uint64_t length = 0;  // bytes of each, > 0
  unsigned depth = 1;   // at a time: a thread for each
  uint64_t offset = 0;  // of the first
  uint64_t step = 0;    // from one to the next; behind the end of the disk it goes on at its start
  // Instead: at multiples of `length` from `offset` on, in an order that this number decides.
  std::optional<uint64_t> seed{};
};

struct TimedReadsEnd {
  uint64_t done = 0;  // reads
  std::chrono::nanoseconds time{0};
  LatencyHistogram latencies;
  std::optional<Error> failure;  // of a read: then no more were begun
  bool interrupted = false;
};

// Runs until all are done, one has failed, or is_interrupted(). Blocks. Fails when the threads
// cannot be had. REQUIRES: length > 0, depth > 0.
Result<TimedReadsEnd> run_timed_reads(const Disk& disk, const TimedReads& reads);

}  // namespace underlay::img
