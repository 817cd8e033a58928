// What the operator allows of single exports (--export-rule), beyond what holds for all.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/error.h"
#include "server/peer_rules.h"
#include "server/rules/network.h"

namespace underlay {

struct ExportRule {
  std::string pattern;            // of names of exports, as fnmatch(3) has it
  bool needs_tls = false;         // only encrypted connections
  unsigned clients = 0;           // at the same time; 0 = no limit
  uint64_t bytes_per_second = 0;  // read by all clients together; 0 = no limit
  uint64_t requests_per_second = 0;
  PeerRules peers{};                // who may connect to a Unix socket
  std::vector<Network> networks{};  // from where one may connect by TCP; none: from anywhere

  // Fails with kDenied when whoever is at the other end of `socket` may not use the export. Where
  // only users are named, nobody may by TCP, which does not tell them.
  Result<void> check_access(int socket) const;
};

// "PATTERN,KEY=VALUE,...": tls=require, clients=N, bandwidth=SIZE, requests=N, user=, group=,
// network=, the last three repeatable. Looks users up. `option` is for messages.
Result<ExportRule> parse_export_rule(std::string_view option, std::string_view text);

// The first rule whose pattern `name` has; one that allows all when there is none.
ExportRule rule_of(const std::vector<ExportRule>& rules, const std::string& name);

}  // namespace underlay
