#include "tools/img/image_info.h"

#include <sys/stat.h>

#include <cerrno>

#include "formats/file_name.h"
#include "tools/img/finding_json.h"
#include "tools/img/image_argument.h"
#include "tools/img/say.h"

namespace underlay::img {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kStatBlockBytes = 512;  // of st_blocks: stat(3type)
constexpr uint64_t kNanosPerSecond = 1'000'000'000;

Result<std::optional<uint64_t>> actual_size(const Source& file) {
  const auto fd = file.fd();
  if (!fd) return std::nullopt;
  struct stat status {};
  if (::fstat(*fd, &status) != 0) {
    return in_file(fail_errno(errno, "cannot look at it"), file.name());
  }
  return static_cast<uint64_t>(status.st_blocks) * kStatBlockBytes;
}

Result<std::optional<ImageContainer>> container_of(const OpenedFile& image) {
  const Source& file = image.source->file();
  if (&file == image.source.get()) return std::nullopt;
  ImageContainer container{.filename = file.name()};
  const std::string prefix = TRY(with_resolved_folder(file.name())) + "#";
  if (image.path.starts_with(prefix)) container.member = image.path.substr(prefix.size());
  container.compressed = image.source->place_of(0).source != &file;
  return container;
}

// By qemu's rule: from the folder of the image, as that was named.
std::string full_backing_filename(const std::string& image, const std::string& backing) {
  if (backing.empty() || names_protocol(backing) || backing.front() == '/') return backing;
  return image.substr(0, image.rfind('/') + 1) + backing;
}

Json snapshot_json(const SnapshotFacts& snapshot) {
  Json json;
  if (snapshot.icount) json["icount"] = *snapshot.icount;
  json["vm-clock-nsec"] = snapshot.vm_clock_nsec % kNanosPerSecond;
  json["name"] = snapshot.name;
  json["date-sec"] = snapshot.date_sec;
  json["date-nsec"] = snapshot.date_nsec;
  json["vm-clock-sec"] = snapshot.vm_clock_nsec / kNanosPerSecond;
  json["id"] = snapshot.id;
  json["vm-state-size"] = snapshot.vm_state_size;
  if (snapshot.disk_size) json["disk-size"] = *snapshot.disk_size;
  return json;
}

Json name_json(const NameInImage& name) {
  Json json{{"role", name.role}, {"name", name.name}};
  if (!name.format.empty()) json["format"] = name.format;
  json["followed"] = name.followed;
  return json;
}

Json container_json(const ImageContainer& container) {
  Json json{{"filename", container.filename}};
  if (!container.member.empty()) json["member"] = container.member;
  json["compressed"] = container.compressed;
  return json;
}

void put_qemus_fields(const ImageInfo& info, Json& json) {
  const ImageFacts& facts = info.facts;
  if (!facts.snapshots.empty()) {
    Json& snapshots = json["snapshots"] = Json::array();
    for (const SnapshotFacts& each : facts.snapshots) snapshots.push_back(snapshot_json(each));
  }
  if (!facts.backing_filename_format.empty()) {
    json["backing-filename-format"] = facts.backing_filename_format;
  }
  json["virtual-size"] = facts.virtual_size;
  json["filename"] = info.filename;
  if (facts.cluster_size) json["cluster-size"] = *facts.cluster_size;
  json["format"] = info.format;
  if (info.actual_size) json["actual-size"] = *info.actual_size;
  if (!facts.specific.is_null()) {
    json["format-specific"] = {{"type", info.format}, {"data", facts.specific}};
  }
  if (!facts.backing_filename.empty()) {
    json["full-backing-filename"] = info.full_backing_filename;
    json["backing-filename"] = facts.backing_filename;
  }
  if (facts.encrypted) json["encrypted"] = true;
  json["dirty-flag"] = facts.dirty;
}

void put_our_fields(const ImageInfo& info, Json& json) {
  const ImageFacts& facts = info.facts;
  json["version"] = kJsonVersion;
  if (info.container) json["container"] = container_json(*info.container);
  if (facts.compressed) json["compressed"] = true;
  if (!facts.creator.empty()) json["creator"] = facts.creator;
  if (!facts.identity.empty()) json["identity"] = facts.identity;
  Json& names = json["names"] = Json::array();
  for (const NameInImage& each : facts.names) names.push_back(name_json(each));
  Json& findings = json["findings"] = Json::array();
  for (const Finding& each : facts.findings) findings.push_back(finding_json(each));
}

// A disk is whole sectors, as qemu-img tells it, too.
void fill_up_last_sector(ImageFacts& facts) {
  const uint64_t size = facts.virtual_size;
  facts.virtual_size = round_up(size, Disk::kSectorBytes).value_or(size);
  if (facts.virtual_size == size) return;
  facts.findings.push_back({.kind = Finding::Kind::kNotice,
                            .code = "size-not-in-sectors",
                            .message = fmt::format("size {} is no multiple of {}: the last sector "
                                                   "is filled up with zeros",
                                                   size, Disk::kSectorBytes)});
}

}  // namespace

Result<ImageInfo> image_info(const ChainImage& image, std::string filename, Caches& caches) {
  ImageInfo info;
  info.filename = std::move(filename);
  info.format = image.format.name;
  info.actual_size = TRY(actual_size(image.file.source->file()));
  info.container = TRY(container_of(image.file));
  const auto facts =
      inspector_of(info.format).describe(file_to_inspect(image.file, image.options, caches));
  if (!facts) return in_file(facts.error(), image.file.path);
  info.facts = *facts;
  fill_up_last_sector(info.facts);
  info.full_backing_filename = full_backing_filename(info.filename, info.facts.backing_filename);
  return info;
}

Json info_json(const ImageInfo& info) {
  Json json;
  put_qemus_fields(info, json);
  put_our_fields(info, json);
  return json;
}

}  // namespace underlay::img
