// The registry's JSON, strictly: nothing missing, nothing unknown, everything in range.
#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "tools/thin/registry.h"

namespace underlay::thin {
namespace {

using Json = nlohmann::ordered_json;

constexpr unsigned kVersion = 1;

const char* name_of(PoolState state) {
  switch (state) {
    case PoolState::kReady:
      return "ready";
    case PoolState::kCreating:
      return "creating";
    case PoolState::kRemoving:
      return "removing";
  }
  return "";
}

const char* name_of(Pending::Kind kind) {
  switch (kind) {
    case Pending::Kind::kCreate:
      return "create";
    case Pending::Kind::kSnapshot:
      return "snapshot";
    case Pending::Kind::kRemove:
      return "remove";
  }
  return "";
}

Json json_of(const PoolRecord& pool) {
  Json pending;
  if (pool.pending) {
    pending = {{"kind", name_of(pool.pending->kind)},
               {"from", pool.pending->from},
               {"volume", pool.pending->volume}};
  }
  return {{"name", pool.name},
          {"uuid", pool.uuid},
          {"data", pool.data},
          {"metadata", pool.metadata},
          {"on_files", pool.on_files},
          {"block_sectors", pool.block_sectors},
          {"low_water_blocks", pool.low_water_blocks},
          {"discards", name_of(pool.discards)},
          {"state", name_of(pool.state)},
          {"transaction_id", pool.transaction_id},
          {"next_thin_id", pool.next_thin_id},
          {"pending", std::move(pending)}};
}

Json json_of(const ImageRecord& image) {
  Json files = Json::array();
  for (const FileStamp& file : image.files) {
    files.push_back({{"path", file.path}, {"size", file.size}, {"mtime_ns", file.mtime_ns}});
    if (file.is_object()) files.back()["version"] = file.version;
  }
  return {{"id", image.id},
          {"backend", image.backend},
          {"location", image.location},
          {"format", image.format},
          {"backing_format", image.backing_format},
          {"allow_paths", image.allow_paths},
          {"parents", image.parents},
          {"size", image.size},
          {"files", std::move(files)},
          {"connections", image.connections},
          {"recovery_timeout", image.recovery_timeout},
          {"dead_timeout", image.dead_timeout},
          {"direct", name_of(image.direct)},
          {"keep", image.keep}};
}

Json json_of(const VolumeRecord& volume) {
  return {{"name", volume.name},
          {"uuid", volume.uuid},
          {"pool", volume.pool},
          {"thin_id", volume.thin_id},
          {"sectors", volume.sectors},
          {"image", volume.image},
          {"snapshot_of", volume.snapshot_of}};
}

template <class List>
Json json_list(const List& list) {
  Json result = Json::array();
  for (const auto& entry : list) result.push_back(json_of(entry));
  return result;
}

// Takes the fields of one object, each exactly once. The first failure sticks.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) refuse("", "is no object");
  }

  std::string text(const char* key) {
    const Json* const value = take(key);
    if (value == nullptr) return "";
    if (!value->is_string()) return refuse(key, "is no string"), "";
    return value->get<std::string>();
  }
  bool boolean(const char* key) {
    const Json* const value = take(key);
    if (value == nullptr) return false;
    if (!value->is_boolean()) return refuse(key, "is neither true nor false"), false;
    return value->get<bool>();
  }
  template <class Number>
  Number number(const char* key) {
    const Json* const value = take(key);
    if (value == nullptr) return 0;
    if constexpr (std::is_signed_v<Number>) {
      // An unsigned number that is too large for the type is no signed integer for us either.
      if (value->is_number_integer() &&
          (!value->is_number_unsigned() || value->get<uint64_t>() <= uint64_t{INT64_MAX})) {
        return value->get<Number>();
      }
    } else if (value->is_number_unsigned() &&
               value->get<uint64_t>() <= std::numeric_limits<Number>::max()) {
      return value->get<Number>();
    }
    return refuse(key, "is no whole number in range"), Number{0};
  }
  template <class Value>
  Value choice(const char* key, std::initializer_list<Value> values) {
    const std::string name = text(key);
    for (const Value value : values) {
      if (name == name_of(value)) return value;
    }
    refuse(key, "has an unknown value");
    return *values.begin();
  }
  std::vector<std::string> texts(const char* key) {
    std::vector<std::string> result;
    for (const Json& entry : list(key)) {
      if (!entry.is_string()) {
        refuse(key, "holds something that is no string");
        break;
      }
      result.push_back(entry.get<std::string>());
    }
    return result;
  }
  const Json& list(const char* key) {
    static const Json kEmpty = Json::array();
    const Json* const value = take(key);
    if (value == nullptr) return kEmpty;
    if (!value->is_array()) return refuse(key, "is no list"), kEmpty;
    return *value;
  }
  // null or an object
  const Json* optional_object(const char* key) {
    const Json* const value = take(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }

  void refuse(const std::string& key, const char* why) {
    if (!error_.empty()) return;
    error_ = key.empty() ? fmt::format("{} {}", where_, why)
                         : fmt::format("{}: '{}' {}", where_, key, why);
  }
  void adopt(const Result<void>& result) {
    if (!result && error_.empty()) error_ = fmt::format("{}: {}", where_, result.error().message);
  }

  Result<void> finish() {
    if (error_.empty()) {
      for (const auto& [key, value] : object_.items()) {
        if (!taken_.contains(key)) refuse(printable(key, 80), "is unknown");
      }
    }
    if (error_.empty()) return {};
    return fail(ErrorKind::kMalformed, "{}", error_);
  }

 private:
  const Json* take(const char* key) {
    if (!error_.empty()) return nullptr;
    taken_.insert(key);
    const auto found = object_.find(key);
    if (found == object_.end()) return refuse(key, "is missing"), nullptr;
    return &*found;
  }

  const Json& object_;
  std::string where_;
  std::set<std::string> taken_;
  std::string error_;
};

Result<Pending> pending_from(const Json& json, const std::string& where) {
  Fields fields(json, where + ": pending");
  Pending pending;
  pending.kind = fields.choice(
      "kind", {Pending::Kind::kCreate, Pending::Kind::kSnapshot, Pending::Kind::kRemove});
  pending.from = fields.number<uint64_t>("from");
  pending.volume = fields.text("volume");
  TRY(fields.finish());
  return pending;
}

Result<PoolRecord> pool_from(const Json& json, const std::string& where) {
  Fields fields(json, where);
  PoolRecord pool;
  pool.name = fields.text("name");
  pool.uuid = fields.text("uuid");
  pool.data = fields.text("data");
  pool.metadata = fields.text("metadata");
  pool.on_files = fields.boolean("on_files");
  pool.block_sectors = fields.number<uint32_t>("block_sectors");
  pool.low_water_blocks = fields.number<uint64_t>("low_water_blocks");
  pool.discards = fields.choice("discards", {Discards::kIgnore, Discards::kUnmap});
  pool.state =
      fields.choice("state", {PoolState::kReady, PoolState::kCreating, PoolState::kRemoving});
  pool.transaction_id = fields.number<uint64_t>("transaction_id");
  pool.next_thin_id = fields.number<uint32_t>("next_thin_id");
  if (const Json* const pending = fields.optional_object("pending")) {
    pool.pending = TRY(pending_from(*pending, where));
  }
  if (pool.block_sectors == 0) fields.refuse("block_sectors", "is 0");
  fields.adopt(check_name(pool.name, "pool"));
  TRY(fields.finish());
  return pool;
}

Result<FileStamp> file_from(const Json& json, const std::string& where) {
  Fields fields(json, where + ": files");
  FileStamp file;
  file.path = fields.text("path");
  file.size = fields.number<uint64_t>("size");
  file.mtime_ns = fields.number<int64_t>("mtime_ns");
  if (json.contains("version")) file.version = fields.text("version");
  TRY(fields.finish());
  return file;
}

Result<ImageRecord> image_from(const Json& json, const std::string& where) {
  Fields fields(json, where);
  ImageRecord image;
  image.id = fields.text("id");
  image.backend = fields.text("backend");
  image.location = fields.text("location");
  image.format = fields.text("format");
  image.backing_format = fields.text("backing_format");
  image.allow_paths = fields.texts("allow_paths");
  // Registries from before --parent do not have it.
  if (json.contains("parents")) image.parents = fields.texts("parents");
  image.size = fields.number<uint64_t>("size");
  for (const Json& file : fields.list("files")) image.files.push_back(TRY(file_from(file, where)));
  image.connections = fields.number<unsigned>("connections");
  image.recovery_timeout = fields.number<unsigned>("recovery_timeout");
  image.dead_timeout = fields.number<unsigned>("dead_timeout");
  image.direct =
      fields.choice("direct", {DirectMode::kAuto, DirectMode::kAlways, DirectMode::kNever});
  image.keep = fields.boolean("keep");
  if (!is_image_id(image.id)) fields.refuse("id", "is not 8 hexadecimal digits");
  if (image.backend.empty()) fields.refuse("backend", "is empty");
  TRY(fields.finish());
  return image;
}

Result<VolumeRecord> volume_from(const Json& json, const std::string& where) {
  Fields fields(json, where);
  VolumeRecord volume;
  volume.name = fields.text("name");
  volume.uuid = fields.text("uuid");
  volume.pool = fields.text("pool");
  volume.thin_id = fields.number<uint32_t>("thin_id");
  volume.sectors = fields.number<uint64_t>("sectors");
  volume.image = fields.text("image");
  volume.snapshot_of = fields.text("snapshot_of");
  if (volume.sectors == 0) fields.refuse("sectors", "is 0");
  fields.adopt(check_name(volume.name, "volume"));
  TRY(fields.finish());
  return volume;
}

// Names and ids stand once, and what they refer to is there.
Result<void> check_references(const Registry& registry) {
  std::set<std::string> names;
  std::set<std::string> ids;
  std::set<std::pair<std::string, uint32_t>> thin_ids;
  for (const PoolRecord& pool : registry.pools) {
    if (!names.insert(pool.name).second) {
      return fail(ErrorKind::kMalformed, "two entries are named {}", pool.name);
    }
    if (pool.pending && registry.volume(pool.pending->volume) == nullptr) {
      return fail(ErrorKind::kMalformed, "pool {}: its pending change is of an unknown volume",
                  pool.name);
    }
  }
  for (const ImageRecord& image : registry.images) {
    if (!ids.insert(image.id).second) {
      return fail(ErrorKind::kMalformed, "two images have the id {}", image.id);
    }
  }
  for (const VolumeRecord& volume : registry.volumes) {
    if (!names.insert(volume.name).second) {
      return fail(ErrorKind::kMalformed, "two entries are named {}", volume.name);
    }
    if (registry.pool(volume.pool) == nullptr) {
      return fail(ErrorKind::kMalformed, "volume {}: its pool is unknown", volume.name);
    }
    if (!volume.image.empty() && registry.image(volume.image) == nullptr) {
      return fail(ErrorKind::kMalformed, "volume {}: its image is unknown", volume.name);
    }
    if (!thin_ids.insert({volume.pool, volume.thin_id}).second) {
      return fail(ErrorKind::kMalformed, "volume {}: another one has its thin id {}", volume.name,
                  volume.thin_id);
    }
  }
  return {};
}

}  // namespace

Result<std::string> to_json(const Registry& registry) {
  const Json document{{"version", kVersion},
                      {"pools", json_list(registry.pools)},
                      {"images", json_list(registry.images)},
                      {"volumes", json_list(registry.volumes)}};
  try {
    return document.dump(2) + "\n";
  } catch (const Json::exception&) {
    return fail(ErrorKind::kUnsupported,
                "the registry cannot hold a path that is no valid UTF-8: rename the file");
  }
}

Result<Registry> registry_from_json(const std::string& text) {
  const Json document = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return fail(ErrorKind::kMalformed, "no valid JSON");
  Fields fields(document, "the registry");
  const auto version = fields.number<unsigned>("version");
  if (version > kVersion) {
    return fail(ErrorKind::kUnsupported,
                "version {} is of a newer program, this one knows up to {}: use the newer one",
                version, kVersion);
  }
  if (version == 0) fields.refuse("version", "is 0");
  Registry registry;
  const auto where = [](const char* what, size_t number) {
    return fmt::format("{} number {}", what, number + 1);
  };
  for (const Json& pool : fields.list("pools")) {
    registry.pools.push_back(TRY(pool_from(pool, where("pool", registry.pools.size()))));
  }
  for (const Json& image : fields.list("images")) {
    registry.images.push_back(TRY(image_from(image, where("image", registry.images.size()))));
  }
  for (const Json& volume : fields.list("volumes")) {
    registry.volumes.push_back(TRY(volume_from(volume, where("volume", registry.volumes.size()))));
  }
  TRY(fields.finish());
  TRY(check_references(registry));
  return registry;
}

}  // namespace underlay::thin
