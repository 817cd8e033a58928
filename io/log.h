// Lines for the operator on standard error, not more of them than a person can read.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

namespace underlay {

// Thread-safe.
class Log {
 public:
  // `program` stands before every line. Unless `verbose`, detail() says nothing.
  Log(std::string program, bool verbose) : program_(std::move(program)), verbose_(verbose) {}

  void error(std::string_view line) { write("", line); }
  void warn(std::string_view line) { write("warning: ", line); }
  // What was done because somebody asked for it.
  void note(std::string_view line) { write("", line); }
  void detail(std::string_view line) {
    if (verbose()) write("", line);
  }

  bool verbose() const { return verbose_.load(std::memory_order_relaxed); }
  void set_verbose(bool verbose) { verbose_.store(verbose, std::memory_order_relaxed); }

  // Lines a second; what exceeds it is counted and said later in one line.
  static constexpr unsigned kLinesPerSecond = 50;

 private:
  void write(std::string_view level, std::string_view line);

  const std::string program_;
  std::atomic<bool> verbose_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point second_;  // under mutex_: start of the current second
  unsigned lines_ = 0;                            // under mutex_: written in it
  unsigned suppressed_ = 0;                       // under mutex_
};

}  // namespace underlay
