#include "server/control/control_commands.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "io/cache/remote_cache.h"
#include "io/http/remote_name.h"
#include "server/control/control_table.h"
#include "server/control/statistics_json.h"
#include "server/entry_fields.h"
#include "server/nbd_protocol.h"
#include "server/options.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMostTrimmed = 1ull << 40;  // no cache is larger

// In ASCII; bytes that are no UTF-8 (of file names) are replaced.
std::string one_line(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

// What was asked for, checked against the table.
struct Asked {
  const ControlCommand* command = nullptr;
  Json arguments = Json::object();

  std::string text(const char* name) const { return arguments.value(name, std::string()); }
  bool flag(const char* name) const { return arguments.value(name, false); }
};

Result<void> check_arguments(const ControlCommand& command, const Json& arguments) {
  for (const auto& [name, value] : arguments.items()) {
    const ControlArgument* known = find_argument(command, name);
    if (known == nullptr) {
      return fail(ErrorKind::kUsage, "{} has no argument \"{}\"", command.name,
                  printable(name, 80));
    }
    const bool is_text = known->kind == ControlArgument::Kind::kText;
    if (is_text ? !value.is_string() : !value.is_boolean()) {
      return fail(ErrorKind::kUsage, "{}: \"{}\" must be {}", command.name, known->name,
                  is_text ? "a string" : "true or false");
    }
  }
  for (const ControlArgument& argument : command.arguments) {
    if (argument.required && !arguments.contains(argument.name)) {
      return fail(ErrorKind::kUsage, "{} needs the argument \"{}\"", command.name, argument.name);
    }
  }
  return {};
}

Result<Asked> understand(std::string_view line) {
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("command") || !json["command"].is_string()) {
    return fail(ErrorKind::kUsage,
                "this is no command: {{\"command\": \"NAME\", \"arguments\": {{...}}}} is one");
  }
  for (const auto& [key, value] : json.items()) {
    if (key == "command" || key == "arguments") continue;
    return fail(ErrorKind::kUsage, "a command has no \"{}\": only \"command\" and \"arguments\"",
                printable(key, 80));
  }
  const std::string name = json["command"];
  Asked asked{.command = find_control_command(name)};
  if (asked.command == nullptr) {
    return fail(ErrorKind::kUsage, "there is no command \"{}\"", printable(name, 80));
  }
  if (json.contains("arguments")) asked.arguments = std::move(json["arguments"]);
  if (!asked.arguments.is_object()) {
    return fail(ErrorKind::kUsage, "\"arguments\" must be an object");
  }
  TRY(check_arguments(*asked.command, asked.arguments));
  return asked;
}

Json exports(const ControlTargets& targets) {
  Json all = Json::array();
  for (const auto& [exported, hidden] : targets.catalog.opened()) {
    const ExportDescription description = exported->describe();
    Json chain = Json::array();
    for (const Layer& layer : exported->disk().layers()) {
      chain.push_back({{"path", layer.path}, {"format", layer.format}});
    }
    all.push_back({{"name", description.name},
                   {"description", description.description},
                   {"size", description.size},
                   {"clients", exported->clients()},
                   {"images", std::move(chain)},
                   {"changed", exported->changed()},
                   {"hidden", hidden}});
  }
  return all;
}

Json clients(const ControlTargets& targets) {
  using std::chrono::duration_cast;
  const auto now = std::chrono::steady_clock::now();
  Json all = Json::array();
  for (const auto& client : targets.clients.list()) {
    Json json{{"id", client->id}};
    if (client->peer.address.empty()) {
      json["pid"] = client->peer.pid;
      json["uid"] = client->peer.uid;
    } else {
      json["address"] = client->peer.address;
    }
    json["export"] = client->export_name;
    json["tls"] = client->tls;
    json["seconds"] = duration_cast<std::chrono::seconds>(now - client->since).count();
    json["reads"] = client->reads.load();
    json["read_bytes"] = client->read_bytes.load();
    all.push_back(std::move(json));
  }
  return all;
}

Result<Json> add(const ControlTargets& targets, const Asked& asked) {
  const AddedExport added{.name = asked.text("name"),
                          .image = asked.text("image"),
                          .format = asked.text("format"),
                          .snapshot = asked.text("snapshot"),
                          .description = asked.text("description")};
  for (const std::string* text : {&added.name, &added.description}) {
    if (text->size() <= nbd::kMaxString) continue;
    return fail(ErrorKind::kUsage, "add: {} bytes of name or description are more than {}",
                text->size(), nbd::kMaxString);
  }
  // Told before the image is opened, which takes its time.
  if (targets.catalog.find_fixed(added.name)) {
    return fail(ErrorKind::kUsage, "there is an export \"{}\" already: remove it first",
                printable(added.name, 256));
  }
  std::shared_ptr<Export> opened = TRY(targets.host.open(added));
  const uint64_t size = opened->size();
  TRY(targets.catalog.add(std::move(opened)));
  const std::string image = shown_name(added.image);
  targets.log.note(fmt::format("export \"{}\": added, from {}", added.name, image),
                   EntryFields().exported(added.name).file(image));
  return Json{{"size", size}};
}

Result<Json> remove(const ControlTargets& targets, const Asked& asked) {
  const std::string name = asked.text("name");
  const auto when_used =
      asked.flag("hide") ? ExportCatalog::WhenUsed::kHide : ExportCatalog::WhenUsed::kStay;
  const unsigned clients_left = TRY(targets.catalog.remove(name, when_used));
  targets.log.note(
      clients_left == 0
          ? fmt::format("export \"{}\": removed", name)
          : fmt::format("export \"{}\": hidden until its {} clients have left", name, clients_left),
      EntryFields().exported(name));
  return Json{{"clients", clients_left}};
}

Result<Json> cache(const ControlTargets& targets, const Asked& asked) {
  const std::shared_ptr<RemoteCache> remote = targets.caches.remote;
  if (!remote) return fail(ErrorKind::kUsage, "cache: the server runs without --cache-dir");
  if (asked.arguments.contains("trim")) {
    const uint64_t most = remote->disk().directory().limit();
    const uint64_t bytes = TRY(parse_bytes("cache: trim", asked.text("trim"), 0, kMostTrimmed));
    TRY(remote->disk().trim(std::min(bytes, most)));
  }
  return remote_cache_json(remote->disk());
}

Json status(const ControlTargets& targets) {
  return {{"status", targets.host.draining() ? "draining" : "serving"},
          {"pid", ::getpid()},
          {"clients", targets.metrics.clients.load()},
          {"log_level", targets.log.verbose() ? "verbose" : "normal"}};
}

Result<Json> set_log_level(const ControlTargets& targets, const Asked& asked) {
  const std::string level = asked.text("level");
  if (level != "normal" && level != "verbose") {
    return fail(ErrorKind::kUsage, "log-level: \"{}\" is not normal or verbose",
                printable(level, 80));
  }
  targets.log.set_verbose(level == "verbose");
  return Json::object();
}

Result<Json> run(const ControlTargets& targets, const Asked& asked) {
  const std::string_view name = asked.command->name;
  if (name == "exports") return exports(targets);
  if (name == "clients") return clients(targets);
  if (name == "add") return add(targets, asked);
  if (name == "remove") return remove(targets, asked);
  if (name == "reload") {
    const auto changes = TRY(targets.host.reload());  // not in the braces: see TRY
    return Json{{"changes", changes}};
  }
  if (name == "log-level") return set_log_level(targets, asked);
  if (name == "statistics") {
    return statistics_json(targets.catalog, targets.caches, targets.metrics);
  }
  if (name == "cache") return cache(targets, asked);
  if (name == "drain") targets.host.drain();
  return status(targets);
}

}  // namespace

std::string control_error(const Error& error) {
  return one_line({{"error", {{"message", error.to_string()}}}});
}

std::string ControlCommands::answer(std::string_view line) {
  const auto asked = without_exceptions([&] { return understand(line); });
  if (!asked) return control_error(asked.error());
  auto answered = without_exceptions([&] { return run(targets_, *asked); });
  if (!answered) return control_error(answered.error());
  return one_line({{"return", *std::move(answered)}});
}

}  // namespace underlay
