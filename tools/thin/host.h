// Where this host keeps what underlay-thin needs, and how a command was asked to run.
#pragma once

#include <string>

#include "tools/thin/steps.h"

namespace underlay::thin {

struct Host {
  std::string state_dir = "/var/lib/underlay";  // the registry
  std::string run_dir = "/run/underlay";        // sockets and logs of servers
  std::string server;                           // the program underlay-nbd
  bool dry_run = false;
  bool json = false;
  bool verbose = false;  // the steps' times on standard error

  std::string image_dir(const std::string& image_id) const { return run_dir + "/" + image_id; }
};

// Runs the steps, or under --dry-run prints them (to standard output: words, one a line; with
// --json as {"steps": [{"name", "command"}]}). Prints their times when verbose.
Result<void> perform(const Host& host, const std::vector<Step>& steps);

}  // namespace underlay::thin
