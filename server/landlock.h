// Landlock (Documentation/userspace-api/landlock.rst, Linux): a process takes rights from itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay {

struct LandlockRights {
  std::vector<std::string> readable;      // folders, whose files may be read; or files
  std::vector<std::string> removed_from;  // folders: files in them may be removed
  std::vector<std::string> written;       // folders: files in them may be made, written and removed
  std::vector<uint16_t> ports;            // TCP: that may be connected to
};

// The version of Landlock that the kernel has; 0 when it has none.
int landlock_version();

// Takes all rights to files, to TCP connections and to other processes that this version knows
// away from the calling thread, but for `rights`. REQUIRES: landlock_version() > 0; no_new_privs.
Result<void> restrict_by_landlock(const LandlockRights& rights);

}  // namespace underlay
