// Lines for the operator on standard error, or entries for the journal, not more of them than a
// person can read.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "io/journal.h"

namespace underlay {

// Thread-safe.
class Log {
 public:
  // `program` stands before every line. Unless `verbose`, detail() says nothing. What the journal
  // does not take is a line on standard error.
  Log(std::string program, bool verbose, Journal journal = {})
      : program_(std::move(program)), journal_(std::move(journal)), verbose_(verbose) {}

  // `fields` are for the journal alone: `line` says all that a person has to know.
  void error(std::string_view line, const LogFields& fields = {}) {
    write(LogPriority::kError, line, fields);
  }
  void warn(std::string_view line, const LogFields& fields = {}) {
    write(LogPriority::kWarning, line, fields);
  }
  // What was done because somebody asked for it.
  void note(std::string_view line, const LogFields& fields = {}) {
    write(LogPriority::kNotice, line, fields);
  }
  void detail(std::string_view line, const LogFields& fields = {}) {
    if (verbose()) write(LogPriority::kInfo, line, fields);
  }

  bool verbose() const { return verbose_.load(std::memory_order_relaxed); }
  void set_verbose(bool verbose) { verbose_.store(verbose, std::memory_order_relaxed); }

  // Lines a second; what exceeds it is counted and said later in one line.
  static constexpr unsigned kLinesPerSecond = 50;

 private:
  void write(LogPriority priority, std::string_view line, const LogFields& fields);
  bool put(LogPriority priority, std::string_view line, const LogFields& fields) const;

  const std::string program_;
  const Journal journal_;
  std::atomic<bool> verbose_;
  std::mutex mutex_;
  std::chrono::steady_clock::time_point second_;  // under mutex_: start of the current second
  unsigned lines_ = 0;                            // under mutex_: written in it
  unsigned suppressed_ = 0;                       // under mutex_
};

}  // namespace underlay
