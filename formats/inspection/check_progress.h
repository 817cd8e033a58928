// How far a check of several passes is.
#pragma once

#include <algorithm>

#include "formats/inspection/check_report.h"

namespace underlay {

class CheckProgress {
 public:
  explicit CheckProgress(CheckReport& report) : report_(report) {}

  // That many steps more will be done: to be called before they are.
  void expect(uint64_t steps) { total_ += steps; }
  // Fails as CheckReport::progress().
  Result<void> did(uint64_t steps) {
    done_ += steps;
    total_ = std::max(total_, done_);
    return report_.progress(done_, total_);
  }

 private:
  CheckReport& report_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
};

}  // namespace underlay
