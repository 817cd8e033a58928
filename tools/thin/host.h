// Where this host keeps what underlay-thin needs, and how a command was asked to run.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tools/thin/steps.h"

namespace underlay::thin {

// What --dry-run says of a step.
struct PlannedStep {
  std::string name;
  std::string words;
};

struct Host {
  std::string state_dir = "/var/lib/underlay";        // the registry
  std::string run_dir = "/run/underlay";              // sockets and logs of servers
  std::string cache_dir = "/var/cache/underlay-nbd";  // of what is on other servers; "" = none
  std::string cache_size;     // of it, as underlay-nbd takes it; "" = its default
  std::string server;         // the program underlay-nbd
  std::string image_program;  // underlay-img
  bool dry_run = false;
  bool json = false;
  bool verbose = false;  // the steps' times on standard error
  // Under --dry-run, what perform() would have done so far, nullopt before its first call; shared
  // by all copies.
  using Planned = std::optional<std::vector<PlannedStep>>;
  std::shared_ptr<Planned> planned = std::make_shared<Planned>();

  std::string image_dir(const std::string& image_id) const { return run_dir + "/" + image_id; }
};

// Runs the steps, or under --dry-run only notes them in `planned`. Prints their times when verbose.
Result<void> perform(const Host& host, const std::vector<Step>& steps);

// Prints what was planned: words, one a line; with --json as {"steps": [{"name", "command"}]}.
// Nothing for commands that have no steps.
void print_plan(const Host& host);

}  // namespace underlay::thin
