// Reconnecting a device in a process of its own, so that one image that hangs holds up no other.
#pragma once

#include <sys/types.h>

#include <chrono>

#include "io/error.h"
#include "io/kernel_nbd.h"
#include "io/unique_fd.h"
#include "tools/thin/host.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

class Repair {
 public:
  // Calls reconnect() in a child that ends with this process. REQUIRES: one thread.
  static Result<Repair> begin(const Host& host, const ImageRecord& image,
                              const KernelNbdDevice& device);
  Repair(Repair&&) = default;
  Repair& operator=(Repair&&) = default;

  int fd() const { return pidfd_.get(); }  // readable when it has ended
  // What reconnect() said. REQUIRES: it has ended; once.
  Result<bool> finish();
  std::chrono::milliseconds age() const;

 private:
  Repair(pid_t pid, UniqueFd pidfd, UniqueFd answer);

  pid_t pid_;
  UniqueFd pidfd_;
  UniqueFd answer_;
  std::chrono::steady_clock::time_point begun_;
};

}  // namespace underlay::thin
