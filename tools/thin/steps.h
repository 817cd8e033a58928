// A command as a list of steps, each with an undo: run in order, undone backwards on failure.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay::thin {

struct Step {
  std::string name;   // "create-thin": of the fault points before and after it, and in reports
  std::string words;  // what a person would type to do the same
  std::function<Result<void>()> run;
  std::function<Result<void>()> undo;  // empty: nothing to undo
};

// What became of one step.
struct StepTime {
  std::string name;
  std::string words;
  std::chrono::microseconds time{0};
};

struct StepReport {
  std::vector<StepTime> done;  // in order; also those that were undone again
};

// Runs the steps in order. When one fails, or SIGINT or SIGTERM is pending (see
// hold_signals()) between two, those that were done are undone in reverse and the first error is
// returned; an undo that fails is named in its message. REQUIRES: every `run` is set.
Result<void> run_steps(const std::vector<Step>& steps, StepReport& report);
Result<void> run_steps(const std::vector<Step>& steps);

void append_steps(std::vector<Step>& steps, std::vector<Step> more);

// SIGINT and SIGTERM are held back from now on in this thread, so that they only act between steps
// or where interrupted() is asked.
void hold_signals();
bool interrupted();

// While it lives, interrupted() is false unless a further signal comes: for what must be done also
// after one. The signals act again in the end. REQUIRES: hold_signals() was called.
class InterruptionPutOff {
 public:
  InterruptionPutOff();
  ~InterruptionPutOff();
  InterruptionPutOff(const InterruptionPutOff&) = delete;
  InterruptionPutOff& operator=(const InterruptionPutOff&) = delete;

 private:
  std::vector<int> signals_;
};

}  // namespace underlay::thin
