// Work on bytes that are not trusted, in a child process without root's rights.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"

namespace underlay::thin {

// What the child answers. For who receives it, all of it is as little trusted as the child.
struct ChildMessage {
  std::string bytes;
  std::vector<UniqueFd> descriptors;
};

struct ChildLimits {
  std::chrono::milliseconds time{60'000};  // by the clock
  std::chrono::seconds processor{30};
  uint64_t memory = 512 << 20;  // bytes of addresses beyond what this process has
  size_t message_bytes = 8 << 20;
  size_t descriptors = 128;    // at most the 253 that the kernel passes at once
  bool starts_others = false;  // threads, and the process of a command for keys
};

// Runs `work` in a child process and answers what it answers, its error included. The child is
// kServiceUser where that user exists and this process is root, can gain no rights, has no
// descriptors of this process and writes no file. It ends with this process. Whatever else it does
// (crashes, runs too long, answers what is no message or too much) is one error that names `file`,
// what the work is about. SIGINT and SIGTERM, held back by hold_signals(), end it.
// REQUIRES: this process has one thread only.
Result<ChildMessage> run_unprivileged(const std::string& file,
                                      const std::function<Result<ChildMessage>()>& work,
                                      const ChildLimits& limits = {});

// " (as user underlay)" where run_unprivileged() changes the user, for messages of what that user
// may not do; else "".
std::string unprivileged_user_words();

}  // namespace underlay::thin
