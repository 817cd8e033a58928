// What becomes of a program whose reader, or peer, has gone.
#pragma once

#include <csignal>

namespace underlay::img {

// While one lives, writing to a pipe or a socket that nobody reads fails with EPIPE; else it ends
// the program at once, and what is not finished stays. One at a time.
class BrokenPipeAsError {
 public:
  BrokenPipeAsError() : before_(std::signal(SIGPIPE, SIG_IGN)) {}
  ~BrokenPipeAsError() { std::signal(SIGPIPE, before_); }
  BrokenPipeAsError(const BrokenPipeAsError&) = delete;
  BrokenPipeAsError& operator=(const BrokenPipeAsError&) = delete;

 private:
  void (*before_)(int);
};

}  // namespace underlay::img
