// What can be asked of a running server, one JSON object at a time, in the words of QMP:
//   {"command": "remove", "arguments": {"name": "disk"}}
//   {"return": {...}} or {"error": {"message": "..."}}
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/block_cache.h"
#include "io/log.h"
#include "server/client_registry.h"
#include "server/export.h"
#include "server/metrics/server_metrics.h"

namespace underlay {

// An export as it is added to a running server.
struct AddedExport {
  std::string name;
  std::string image;
  std::string format;    // "" = guess
  std::string snapshot;  // "" = none
  std::string description;
};

// What commands need of the server beyond what it knows of itself.
class ControlHost {
 public:
  virtual ~ControlHost() = default;
  // Opens the image as the command line would have it. May block.
  virtual Result<std::shared_ptr<Export>> open(const AddedExport& added) = 0;
  // What SIGHUP does: the changes, a line each. An error leaves everything as it was. May block.
  virtual Result<std::vector<std::string>> reload() = 0;
  virtual void drain() = 0;
  virtual bool draining() const = 0;
};

// All outlive the commands.
struct ControlTargets {
  ControlHost& host;
  ExportCatalog& catalog;
  const ClientRegistry& clients;
  const ServerMetrics& metrics;
  const Caches& caches;
  Log& log;
};

class ControlCommands {
 public:
  explicit ControlCommands(const ControlTargets& targets) : targets_(targets) {}

  // The answer to `line`, whatever that is: one line, without its end. May block.
  std::string answer(std::string_view line);

 private:
  const ControlTargets targets_;
};

// The answer that is an error.
std::string control_error(const Error& error);

}  // namespace underlay
