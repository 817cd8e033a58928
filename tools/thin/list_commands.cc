#include "tools/thin/list_commands.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/common/text.h"
#include "tools/thin/attachment.h"
#include "tools/thin/names.h"
#include "tools/thin/origin.h"
#include "tools/thin/output.h"
#include "tools/thin/registry_store.h"
#include "tools/thin/server_process.h"
#include "tools/thin/thin_pool.h"
#include "tools/thin/volume_device.h"

namespace underlay::thin {
namespace {

using Json = nlohmann::ordered_json;

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

// The origin of a volume as it is now.
struct OriginState {
  const ImageRecord* image = nullptr;
  std::optional<OriginShare> share;  // nullopt: the origin is not active
  std::optional<KernelNbdDevice> nbd;
  std::optional<pid_t> server;
  std::string server_state;  // "running", "not running", "remote", "not needed"
  std::string connections;   // "alive", "dead", "none", "unknown"
  std::string reason;        // why something is read from the server, "" when nothing is
};

Result<OriginState> look_at_origin(const Host& host, const ImageRecord& image) {
  OriginState state;
  state.image = &image;
  state.share = TRY(origin_share(image.id));
  state.nbd = TRY(find_attachment(image));
  state.reason = origin_reason(host, image.id);
  if (image.is_remote()) {
    state.server_state = "remote";
    // The kernel tells who asks in time only: 'watch' hears it.
    state.connections = state.nbd ? "unknown" : "none";
    return state;
  }
  state.server = TRY(running_server(host, image.id));
  if (state.server) {
    state.server_state = "running";
  } else {
    state.server_state = state.nbd ? "not running" : "not needed";
  }
  state.connections = !state.nbd ? "none" : state.server ? "alive" : "dead";
  return state;
}

double direct_share(const OriginShare& share) {
  const uint64_t stored = share.file_sectors + share.server_sectors;
  return stored == 0 ? 1.0 : static_cast<double>(share.file_sectors) / static_cast<double>(stored);
}

Json json_of(const OriginState& origin) {
  const OriginShare share = origin.share.value_or(OriginShare{});
  return {{"image", origin.image->location},
          {"id", origin.image->id},
          {"device", origin.share ? Json(dm_path(origin_name(origin.image->id))) : Json()},
          {"direct", share.file_sectors * kSectorBytes},
          {"zero", share.zero_sectors * kSectorBytes},
          {"server", share.server_sectors * kSectorBytes},
          {"direct_share", direct_share(share)},
          {"reason", text_or_null(origin.reason)},
          {"nbd", origin.nbd ? Json(origin.nbd->path) : Json()},
          {"server_pid", origin.server ? Json(*origin.server) : Json()},
          {"server_state", origin.server_state},
          {"connections", origin.connections}};
}

std::string origin_text(const OriginState& origin) {
  std::string text = fmt::format(
      "origin:       {} ({})\n", origin.image->location,
      origin.share ? dm_path(origin_name(origin.image->id)) : std::string("not active"));
  if (origin.share) {
    const OriginShare& share = *origin.share;
    text += fmt::format("  direct:     {} of {} stored ({:.0f} %) are read without the server\n",
                        human_size(share.file_sectors * kSectorBytes),
                        human_size((share.file_sectors + share.server_sectors) * kSectorBytes),
                        direct_share(share) * 100);
    text += fmt::format("  zero:       {}\n", human_size(share.zero_sectors * kSectorBytes));
  }
  if (!origin.reason.empty()) text += fmt::format("  not direct: {}\n", origin.reason);
  text += fmt::format("  server:     {}{}\n", origin.server_state,
                      origin.server ? fmt::format(", process {}", *origin.server) : "");
  text += fmt::format("  nbd:        {}, connections: {}\n", origin.nbd ? origin.nbd->path : "none",
                      origin.connections);
  return text;
}

}  // namespace

Result<void> list_command(const Host& host) {
  const Registry registry = TRY(read_registry(host.state_dir));
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows{{"NAME", "POOL", "SIZE", "ACTIVE", "IMAGE"}};
  for (const VolumeRecord& volume : registry.volumes) {
    const bool active = TRY(is_active(volume));
    const ImageRecord* const image = registry.image(volume.image);
    const std::string location = image == nullptr ? "" : image->location;
    list.push_back({{"name", volume.name},
                    {"pool", volume.pool},
                    {"size", volume.sectors * kSectorBytes},
                    {"image", text_or_null(location)},
                    {"image_id", text_or_null(volume.image)},
                    {"snapshot_of", text_or_null(volume.snapshot_of)},
                    {"active", active},
                    {"device", active ? Json(dm_path(volume.name)) : Json()}});
    rows.push_back({volume.name, volume.pool, human_size(volume.sectors * kSectorBytes),
                    active ? "yes" : "no", location.empty() ? "-" : location});
  }
  if (host.json) {
    print_json({{"version", 1}, {"volumes", std::move(list)}});
  } else {
    fmt::print("{}", aligned(rows));
  }
  return {};
}

Result<void> status_command(const Host& host, const StatusArguments& arguments) {
  const Registry registry = TRY(read_registry(host.state_dir));
  const VolumeRecord volume = TRY(find_volume(registry, arguments.name));
  const bool active = TRY(is_active(volume));
  std::optional<ThinStatus> thin;
  if (active) thin = TRY(thin_status(volume.name));
  std::optional<OriginState> origin;
  if (const ImageRecord* const image = registry.image(volume.image)) {
    origin = TRY(look_at_origin(host, *image));
  }
  const uint64_t mapped = thin ? thin->mapped_sectors * kSectorBytes : 0;
  const char* const state = !active ? "not active" : thin->failed ? "failed" : "active";
  if (host.json) {
    const Json document{{"version", 1},
                        {"name", volume.name},
                        {"pool", volume.pool},
                        {"device", active ? Json(dm_path(volume.name)) : Json()},
                        {"active", active},
                        {"state", state},
                        {"size", volume.sectors * kSectorBytes},
                        {"mapped", thin ? Json(mapped) : Json()},
                        {"snapshot_of", text_or_null(volume.snapshot_of)},
                        {"origin", origin ? json_of(*origin) : Json()}};
    print_json(document);
    return {};
  }
  fmt::print("volume:       {} ({})\n", volume.name, active ? dm_path(volume.name) : state);
  fmt::print("pool:         {}\n", volume.pool);
  fmt::print("size:         {}\n", human_size(volume.sectors * kSectorBytes));
  if (thin) {
    fmt::print("mapped:       {}{}\n", human_size(mapped),
               thin->failed ? ", FAILED: the pool does not answer" : "");
  }
  if (!volume.snapshot_of.empty()) fmt::print("snapshot of:  {}\n", volume.snapshot_of);
  fmt::print("{}", origin ? origin_text(*origin) : "origin:       none\n");
  return {};
}

}  // namespace underlay::thin
