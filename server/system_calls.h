// The system calls that a caged server may make (seccomp).
#pragma once

#include "io/error.h"

namespace underlay {

struct SystemCallPlan {
  bool opens_files = false;    // for reading only
  bool writes_files = false;   // makes and removes them; which ones is Landlock's business
  bool connects = false;       // to servers on the Internet, whose names are looked up
  bool removes_files = false;  // when it ends
  bool kernel_device = false;  // -c: messages to the kernel over sockets that are open
};

// All others fail with EPERM from here on, in the calling thread and those that it starts.
// REQUIRES: no_new_privs.
Result<void> allow_only(const SystemCallPlan& plan);

}  // namespace underlay
