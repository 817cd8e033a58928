#include "io/cache/sequential_reads.h"

#include <algorithm>

namespace underlay {

// The run that the read belongs to; else the one that was not used for longest, begun anew.
SequentialReads::Run& SequentialReads::run_of(uint64_t offset) {
  for (Run& run : runs_) {
    if (run.reads > 0 && offset + kDisorder >= run.next && offset <= run.next + kDisorder) {
      return run;
    }
  }
  Run& oldest = *std::ranges::min_element(runs_, {}, &Run::used);
  oldest = Run{.next = offset, .ahead = offset, .window = kFirstWindow / 2};
  return oldest;
}

std::optional<SequentialReads::Range> SequentialReads::note(uint64_t offset, uint64_t length) {
  Run& run = run_of(offset);
  run.used = ++uses_;
  run.next = std::max(run.next, offset + length);
  run.ahead = std::max(run.ahead, run.next);
  if (++run.reads < kReadsOfRun || run.ahead - run.next >= run.window / 2) return std::nullopt;
  run.window = std::min(2 * run.window, kMaxWindow);
  const Range range{.begin = run.ahead, .end = run.next + run.window};
  if (range.begin >= range.end) return std::nullopt;
  run.ahead = range.end;
  return range;
}

}  // namespace underlay
