// A suspended device that does not stay so when this process is killed.
#pragma once

#include <sys/types.h>

#include <string>

#include "io/error.h"
#include "io/unique_fd.h"
#include "tools/thin/device_mapper.h"

namespace underlay::thin {

// While a device is suspended, everything that writes to it waits. A small process of its own waits
// for the end of this one and resumes the device then.
class SuspendGuard {
 public:
  static Result<SuspendGuard> suspend(const std::string& name, Flush flush);
  SuspendGuard(SuspendGuard&&) noexcept;
  SuspendGuard& operator=(SuspendGuard&&) = delete;
  // Resumes the device when resume() has not been called; a failure then is lost.
  ~SuspendGuard();

  // Nothing to do when it is resumed already.
  Result<void> resume();

 private:
  SuspendGuard(std::string name, UniqueFd pipe, pid_t process);
  void dismiss();

  std::string name_;
  UniqueFd pipe_;  // its end tells the guarding process to act
  pid_t process_;  // 0: moved from or resumed
};

}  // namespace underlay::thin
