#include "server/control/reload.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "io/http/remote_name.h"

namespace underlay {
namespace {

// Options that a reload obeys; those about credentials unless TLS is switched on or off.
constexpr std::array<std::string_view, 13> kReloaded = {
    "export", "export-name", "format", "load-snapshot", "image-opts", "description", "offset",
    "bitmap", "parent",      "reader", "force-share",   "object",     "tls-creds"};
constexpr std::string_view kAuthorization = "tls-authz";

bool is_reloaded(std::string_view option) {
  return option == kAuthorization || std::ranges::find(kReloaded, option) != kReloaded.end();
}

// Is its file still the one that was opened, with the same content?
bool is_current(const Export& exported) {
  exported.disk().look_again();
  return !exported.changed() && exported.disk().find_replaced() == nullptr &&
         exported.disk().check_unchanged();
}

}  // namespace

Result<std::shared_ptr<const TlsCredentials>> load_credentials(const Options& options) {
  if (options.tls == TlsMode::kOff) return nullptr;
  std::optional<Authorization> authorization;
  if (options.tls_authz) authorization = TRY(Authorization::load(*options.tls_authz));
  return TlsCredentials::load(*options.tls_creds, options.secrets, std::move(authorization));
}

// All that a reload will do, so that nothing is done when some of it cannot be.
struct Reload::Changes {
  std::vector<std::shared_ptr<Export>> opened;
  std::vector<std::string> removed;  // names
  std::optional<std::shared_ptr<const TlsCredentials>> credentials;
  Plans served;
  std::vector<std::string> lines;
};

Reload::Reload(std::vector<std::string> arguments, GivenOptions given, const Options& started,
               const ReloadTargets& targets)
    : arguments_(std::move(arguments)),
      started_with_(std::move(given)),
      tls_(started.tls),
      targets_(targets) {
  for (ExportPlan& plan : export_plans(started)) served_.emplace(plan.name, std::move(plan));
}

Result<std::vector<std::string>> Reload::run() {
  const GivenOptions given = TRY(GivenOptions::read(arguments_));
  const CommandLine line = TRY(parse_command_line(given));
  Changes changes = TRY(prepare(line.options));
  note_later(given, changes.lines);
  std::vector<std::string> lines = changes.lines;
  apply(std::move(changes));
  return lines;
}

Result<Reload::Changes> Reload::prepare(const Options& options) {
  Changes changes;
  for (const ExportPlan& plan : export_plans(options)) TRY(prepare_export(plan, changes));
  for (const auto& [name, plan] : served_) {
    const auto exported = targets_.catalog.find_fixed(name);
    if (changes.served.contains(name) || !exported) continue;
    changes.removed.push_back(name);
    const unsigned clients = exported->clients();
    changes.lines.push_back(
        clients == 0
            ? fmt::format("export \"{}\": removed", name)
            : fmt::format("export \"{}\": hidden until its {} clients have left", name, clients));
  }
  if (options.tls == tls_ && tls_ != TlsMode::kOff) {
    changes.credentials = TRY(load_credentials(options));
    changes.lines.emplace_back("TLS credentials: loaded again, for connections to come");
  }
  return changes;
}

Result<void> Reload::prepare_export(const ExportPlan& plan, Changes& changes) {
  const auto exported = targets_.catalog.find_fixed(plan.name);
  const auto known = served_.find(plan.name);
  const bool same = exported && known != served_.end() && known->second == plan;
  if (same && is_current(*exported)) {
    changes.served.emplace(plan.name, plan);
    return {};
  }
  const unsigned clients = exported ? exported->clients() : 0;
  if (clients > 0) {
    // As it was, so that the next reload tries again.
    changes.served.emplace(plan.name, known != served_.end() ? known->second : ExportPlan());
    changes.lines.push_back(fmt::format(
        "export \"{}\": {} clients use it, so it stays as it was opened", plan.name, clients));
    return {};
  }
  auto opened = open_export(plan, targets_.catalog.service_for(plan.name), targets_.files,
                            targets_.caches, targets_.log);
  if (!opened) {
    return with_context(std::move(opened).error(), fmt::format("export \"{}\": ", plan.name));
  }
  changes.opened.push_back(*std::move(opened));
  changes.served.emplace(plan.name, plan);
  changes.lines.push_back(fmt::format("export \"{}\": {}, from {}", plan.name,
                                      exported ? "opened again" : "added", shown_name(plan.path)));
  return {};
}

void Reload::note_later(const GivenOptions& given, std::vector<std::string>& lines) const {
  for (const std::string& name : given.differences(started_with_)) {
    if (is_reloaded(name)) continue;
    lines.push_back(fmt::format("--{}: counts from the next start", name));
  }
}

void Reload::apply(Changes changes) {
  for (auto& opened : changes.opened) targets_.catalog.replace(std::move(opened));
  for (const std::string& name : changes.removed) {
    // It is gone already when the same was asked for in another way.
    (void)targets_.catalog.remove(name, ExportCatalog::WhenUsed::kHide);
  }
  if (changes.credentials) targets_.credentials.replace(*std::move(changes.credentials));
  served_ = std::move(changes.served);
  for (const std::string& line : changes.lines) targets_.log.note("reload: " + line);
}

}  // namespace underlay
