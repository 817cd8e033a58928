// What thin_dump prints of one thin volume (XML), read as it comes.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {

// Collects the mapped runs of one thin id. Both forms are understood: mappings within their device,
// and runs shared by several devices that stand in front of them.
class ThinDumpReader {
 public:
  explicit ThinDumpReader(uint32_t thin_id);
  ~ThinDumpReader();
  ThinDumpReader(const ThinDumpReader&) = delete;
  ThinDumpReader& operator=(const ThinDumpReader&) = delete;

  Result<void> add(std::string_view text);
  // After the last piece: the runs, ascending and merged. kNotFound when the id is not in the dump.
  Result<std::vector<MappedRun>> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace underlay::thin
