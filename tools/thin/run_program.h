// Runs a program to its end and reads what it prints.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"

namespace underlay::thin {

// Gets the output in pieces, as it comes.
using OutputSink = std::function<Result<void>(std::string_view)>;

// Runs arguments[0], searched in PATH and in /usr/sbin, without a shell and with no input. Returns
// when it has ended. Fails when it cannot be run, ends with a status other than 0 (its standard
// error is in the message), or the sink fails (then it is ended). Signals that the caller holds
// back act on the program.
Result<void> run_program(const std::vector<std::string>& arguments, const OutputSink& sink);

// The same of a program that shows its progress, which goes on to this process's standard error as
// it comes. A line that begins with "PROGRAM: " is its error, and in the message. SIGINT and
// SIGTERM, held back by hold_signals(), end it: kUsage.
Result<void> run_with_progress(const std::vector<std::string>& arguments);

}  // namespace underlay::thin
