// A process that runs one command, again and again, for a program that may run none itself: a
// server in its sandbox asks it for new credentials.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay {

class CommandHelper {
 public:
  // Starts the process, which has the caller's rights and environment of now, and none of its open
  // files. `command` is the operator's, for /bin/sh.
  static Result<std::unique_ptr<CommandHelper>> start(const std::string& command);

  // What the command writes to its standard output, at most kMaxOutput bytes. Fails when it fails,
  // or does not end in time. Blocks. Thread-safe.
  Result<std::string> run();

  static constexpr size_t kMaxOutput = 64 << 10;
  static constexpr std::chrono::seconds kTime{30};  // for the command to end

 private:
  explicit CommandHelper(UniqueFd channel) : channel_(std::move(channel)) {}

  Failure give_up(int error);

  std::mutex mutex_;
  UniqueFd channel_;  // the helper ends when it is closed
};

}  // namespace underlay
