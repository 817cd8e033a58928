// What thin_delta prints of two thin volumes of a pool (XML), read as it comes.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {

// Collects the runs that only one of the two has, or that are different blocks of the pool.
class ThinDeltaReader {
 public:
  ThinDeltaReader();
  ~ThinDeltaReader();
  ThinDeltaReader(const ThinDeltaReader&) = delete;
  ThinDeltaReader& operator=(const ThinDeltaReader&) = delete;

  Result<void> add(std::string_view text);
  // After the last piece: ascending, those that touch merged.
  Result<std::vector<MappedRun>> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace underlay::thin
