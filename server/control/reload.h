// SIGHUP and `reload`: brings what is served into line with the command line and the configuration
// file, as these are now.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/export.h"
#include "server/export_plan.h"
#include "server/option_rules.h"
#include "server/options.h"
#include "server/tls/current_credentials.h"
#include "server/tls/tls_credentials.h"

namespace underlay {

// Null without TLS. May block.
Result<std::shared_ptr<const TlsCredentials>> load_credentials(const Options& options);

// What a reload acts on; all outlives it.
struct ReloadTargets {
  ExportCatalog& catalog;
  CurrentCredentials& credentials;
  const NamedFiles& files;
  Caches& caches;
  Log& log;
};

// Belongs to one thread.
class Reload {
 public:
  // `arguments`: of the command line, which `started` came of; its exports are being served.
  Reload(std::vector<std::string> arguments, GivenOptions given, const Options& started,
         const ReloadTargets& targets);

  // Does it, and logs what it changes: a line each, which are returned. An error, which has not
  // been logged, leaves everything as it was. May block.
  //
  // An export that clients use is not changed: it stays as it is, or is hidden when it is not
  // wanted any more. Options about other things than exports and credentials count from the next
  // start.
  Result<std::vector<std::string>> run();

 private:
  using Plans = std::map<std::string, ExportPlan>;  // by name
  struct Changes;

  Result<Changes> prepare(const Options& options);
  Result<void> prepare_export(const ExportPlan& plan, Changes& changes);
  void apply(Changes changes);
  void note_later(const GivenOptions& given, std::vector<std::string>& lines) const;

  const std::vector<std::string> arguments_;
  const GivenOptions started_with_;
  const TlsMode tls_;
  const ReloadTargets targets_;
  Plans served_;  // what the configuration said of the exports that it has opened
};

}  // namespace underlay
