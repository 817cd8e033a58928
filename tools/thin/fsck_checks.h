// Compares what there is with what the registry says. Pure.
#pragma once

#include <string>
#include <vector>

#include "tools/thin/fsck_state.h"

namespace underlay::thin {

// What --repair does about a problem; none of them loses data. In the order in which they are done.
enum class FsckRepair : uint8_t {
  kNone,           // the text says what a person may do
  kRecover,        // subject: pool; its pending change is finished or taken back
  kRemoveFile,     // subject: path
  kRemoveHydrate,  // subject: device
  kClearTable,     // subject: device; the table that is loaded and not live is dropped
  kResume,         // subject: device
  kReloadVolume,   // subject: volume; its device gets the origin that the registry names
  kReconnect,      // subject: image
  kRemoveDevice,   // subject: device that nothing uses
  kRelease,        // subject: image; its origin and attachment go unless used
  kForget,         // subject: image; the same, and its record
  kDisconnect,     // subject: nbd device that nothing uses
  kStopServer,     // subject: image id, which need not be in the registry
};

struct FsckProblem {
  std::string what;  // kind, for machines: "volume-origin"
  std::string text;  // one line: what is wrong, and what to do
  FsckRepair repair = FsckRepair::kNone;
  std::string subject{};
  bool operator==(const FsckProblem&) const = default;
};

// In the order of the repairs.
std::vector<FsckProblem> find_problems(const FsckState& state);

}  // namespace underlay::thin
