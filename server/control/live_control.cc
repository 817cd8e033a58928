#include "server/control/live_control.h"

#include <algorithm>
#include <filesystem>

#include "io/http/remote_name.h"
#include "io/http/remote_needs.h"
#include "server/cage_plan.h"
#include "server/entry_fields.h"

namespace underlay {
namespace {

namespace fs = std::filesystem;

bool is_below(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

}  // namespace

LiveControl::LiveControl(const StartedProgram& program, Server& server,
                         const ReloadTargets& targets)
    : options_(program.options),
      server_(server),
      targets_(targets),
      cage_(cage_plan(program.options)),
      reload_(program.arguments, program.given, program.options, targets),
      commands_({.host = *this,
                 .catalog = targets.catalog,
                 .clients = server.clients(),
                 .metrics = server.metrics(),
                 .caches = targets.caches,
                 .log = targets.log}) {}

Result<std::unique_ptr<ControlServer>> LiveControl::start(std::optional<ListenSocket> socket) {
  if (!is_live(options_)) return nullptr;
  auto started = TRY(ControlServer::start(
      std::move(socket),
      {.answer = [this](std::string_view line) { return commands_.answer(line); },
       .reload = [this] { on_hangup(); }},
      targets_.log));
  if (!options_.config.empty()) {
    server_.on_hangup([control = started.get()] { control->ask_reload(); });
  }
  return started;
}

Result<void> LiveControl::check_server(const std::string& image) const {
  if (!options_.sandbox) return {};
  const auto needs = needs_of({image});
  const bool granted = needs && std::ranges::includes(cage_.ports, needs->ports) &&
                       std::ranges::includes(cage_.system_files, needs->readable);
  if (granted) return {};
  return in_file(fail(ErrorKind::kDenied,
                      "the sandbox opens no connections to this server: start the server with an "
                      "image there, with --allow-path and a URL of it, or with --sandbox=off"),
                 shown_name(image));
}

// A line that says why, where the system would only say that it is forbidden.
Result<void> LiveControl::check_place(const std::string& image) const {
  if (is_remote_name(image)) {
    return check_server(image);
  }
  if (!image.starts_with('/')) {
    return fail(ErrorKind::kUsage, "the image \"{}\" must be an absolute path or a URL",
                printable(image, 200));
  }
  if (!options_.sandbox) return {};
  std::error_code error;
  const fs::path path = fs::weakly_canonical(image, error);
  const auto holds = [&](const std::string& folder) { return is_below(path, folder); };
  if (!error && std::ranges::any_of(cage_.folders, holds)) return {};
  return in_file(fail(ErrorKind::kDenied,
                      "the sandbox opens no file in this folder: start the server with "
                      "--allow-path {} or --sandbox=off",
                      path.parent_path().string()),
                 image);
}

Result<std::shared_ptr<Export>> LiveControl::open(const AddedExport& added) {
  TRY(check_place(added.image));
  ExportPlan plan{
      .name = added.name,
      .path = added.image,
      .open = with_common_options({}, options_),
      .description = added.description.empty() ? options_.description : added.description,
      .bitmaps = {}};
  plan.open.format = added.format;
  if (!added.snapshot.empty()) plan.open.image.snapshot = added.snapshot;
  return open_export(plan, targets_.catalog.service_for(plan.name), targets_.files, targets_.caches,
                     targets_.log);
}

Result<std::vector<std::string>> LiveControl::reload() {
  if (!options_.config.empty()) return reload_.run();
  return fail(ErrorKind::kUsage, "there is nothing to reload: the server runs without --config");
}

void LiveControl::on_hangup() {
  const auto reloaded = without_exceptions([&] { return reload(); });
  if (reloaded) return;
  targets_.log.error(fmt::format("reload: {}; all stays as it was", reloaded.error().to_string()),
                     EntryFields().error(reloaded.error()));
}

}  // namespace underlay
