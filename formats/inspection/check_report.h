// Where a format's check puts what it finds. Findings go on at once: none is kept here, so memory
// does not grow with the damage.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "formats/inspection/finding.h"
#include "io/error.h"

namespace underlay {

// What qemu-img check counts beside what is wrong, in clusters (blocks, grains).
struct CheckTotals {
  std::optional<uint64_t> image_end_offset;  // bytes: behind the last cluster that is used
  uint64_t total = 0;                        // guest clusters
  uint64_t allocated = 0;
  uint64_t fragmented = 0;  // not behind the cluster before it
  uint64_t compressed = 0;
};

// Not thread-safe.
class CheckReport {
 public:
  using Sink = std::function<void(const Finding&)>;
  // How far the check is, in units of its own; false: stop soon.
  using Progress = std::function<bool(uint64_t done, uint64_t total)>;

  CheckReport(Sink sink, Progress progress)
      : sink_(std::move(sink)), progress_(std::move(progress)) {}

  // More findings are only counted: a damaged image may have one for each of its blocks, and
  // wording and telling them takes much longer than finding them.
  static constexpr uint64_t kMaxTold = 1000;

  // Counts as `count` of its kind (qemu counts leaked clusters one by one) and is told.
  void add(const Finding& finding, uint64_t count = 1);
  // The same of make(), which is a finding of that kind; not called when it is not told.
  template <class Make>
  void add(Finding::Kind kind, const Make& make, uint64_t count = 1) {
    if (told_ < kMaxTold) return add(make(), count);
    counts_[static_cast<size_t>(kind)] += count;
    ++untold_;
  }
  // The same of an error in a file that the message names, where the image names several: kIo
  // counts as kFailure, everything else as kCorruption.
  void add(std::string code, Error error);
  // The same of rules that a reader knows. What this program does not serve is no damage (kNotice);
  // what is above a budget of it was not looked at (kFailure).
  void add(const Defects& defects);
  void add(const Remarks& remarks);

  uint64_t count(Finding::Kind kind) const { return counts_[static_cast<size_t>(kind)]; }

  // Findings that were only counted.
  uint64_t untold() const { return untold_; }

  // To be called often. Fails with kIo and EINTR when the operator wants the check to end.
  Result<void> progress(uint64_t done, uint64_t total);

  CheckTotals totals;

 private:
  Sink sink_;
  Progress progress_;
  std::array<uint64_t, 4> counts_{};
  uint64_t told_ = 0;
  uint64_t untold_ = 0;
};

}  // namespace underlay
