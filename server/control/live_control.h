// What the control socket and SIGHUP can change of this very server.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/cage.h"
#include "server/control/control_commands.h"
#include "server/control/control_server.h"
#include "server/control/reload.h"
#include "server/option_rules.h"
#include "server/options.h"
#include "server/server.h"

namespace underlay {

// How the program was called.
struct StartedProgram {
  const std::vector<std::string>& arguments;
  const GivenOptions& given;
  const Options& options;
};

class LiveControl final : private ControlHost {
 public:
  // All outlives it. Looks at folders: to be called before the sandbox closes.
  LiveControl(const StartedProgram& program, Server& server, const ReloadTargets& targets);

  // Serves `socket` and, with --config, SIGHUP, as long as what is returned lives; null when there
  // is neither. To be called once the process may start threads.
  Result<std::unique_ptr<ControlServer>> start(std::optional<ListenSocket> socket);

 private:
  Result<std::shared_ptr<Export>> open(const AddedExport& added) override;
  Result<std::vector<std::string>> reload() override;
  void drain() override { server_.drain(); }
  bool draining() const override { return server_.draining(); }
  Result<void> check_place(const std::string& image) const;
  Result<void> check_server(const std::string& image) const;
  void on_hangup();

  const Options& options_;
  Server& server_;
  const ReloadTargets targets_;
  const CagePlan cage_;  // the sandbox's
  Reload reload_;
  ControlCommands commands_;
};

}  // namespace underlay
