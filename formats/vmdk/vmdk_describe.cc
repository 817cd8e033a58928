#include "formats/vmdk/vmdk_describe.h"

#include <algorithm>
#include <tuple>

#include "formats/file_range.h"
#include "formats/inspection/image_facts.h"
#include "formats/vmdk/vmdk_head.h"
#include "formats/vmdk/vmdk_reader.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;

// Sizes that a damaged header states may be any; this is still a number of bytes.
uint64_t bytes_of(uint64_t sectors) {
  return std::min(sectors, kVmdkMaxSectors) * kVmdkSectorBytes;
}

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

// As qemu resolves it: from the folder of the image.
std::string path_of_extent(const std::string& image, const std::string& name) {
  if (name.starts_with('/')) return name;
  return image.substr(0, image.find_last_of('/') + 1) + name;
}

// What an extent takes of its file, in sectors.
FileRange range_of(const VmdkExtentLine& line) {
  if (line.kind == VmdkExtentLine::Kind::kFlat) return {line.offset, line.sectors};
  return {.offset = 0, .length = ~uint64_t{0}};
}

// The type in the descriptor of an extent without one.
std::string_view lone_extent_type(VmdkMagic magic) {
  switch (magic) {
    case VmdkMagic::kCowd:
      return "VMFSSPARSE";
    case VmdkMagic::kSeSparse:
      return "SESPARSE";
    default:
      return "SPARSE";
  }
}

class VmdkDescriber {
 public:
  VmdkDescriber(const FileToInspect& file, VmdkHead head)
      : file_(file), source_(*file.source), head_(std::move(head)) {}

  ImageFacts describe() {
    facts_.findings = std::move(head_.findings);
    facts_.virtual_size = bytes_of(head_.sectors());
    if (head_.header) {
      describe_header(*head_.header);
    } else if (head_.extent) {
      facts_.cluster_size = head_.extent->geometry.grain_bytes();
    }
    if (!head_.descriptor) {
      describe_lone_extent();
    } else if (head_.has_own_extent()) {
      describe_own_extent(*head_.descriptor);
    } else {
      describe_named_extents(*head_.descriptor);
    }
    return std::move(facts_);
  }

 private:
  void refuse(std::string_view code, std::string message) {
    facts_.findings.push_back({.kind = Finding::Kind::kCorruption,
                               .code = std::string(code),
                               .message = std::move(message)});
  }

  void describe_header(const VmdkSparseHeader& header) {
    header_ = {{"version", header.version},
               {"flags", header.flags},
               {"capacity", bytes_of(header.capacity)},
               {"footer", head_.has_footer},
               {"redundant-directory", header.rgd_offset != 0},
               {"unclean-shutdown", header.unclean_shutdown}};
    facts_.compressed = header.compressed;
    if (header.capacity > 0) facts_.cluster_size = bytes_of(header.grain_size);
  }

  void describe_lone_extent() {
    facts_.specific = Json::object();
    if (!header_.empty()) facts_.specific["header"] = std::move(header_);
    facts_.specific["extents"] =
        Json::array({extent_json(facts_.virtual_size, "", lone_extent_type(head_.magic))});
  }

  void describe_own_extent(const VmdkDescriptor& descriptor) {
    for (const VmdkExtentLine& line : descriptor.extents) add_name(line, /*followed=*/false);
    // qemu leaves its format out.
    finish(descriptor, Json::array({extent_json(facts_.virtual_size, "", "")}));
  }

  void describe_named_extents(const VmdkDescriptor& descriptor) {
    facts_.cluster_size.reset();
    Json extents = Json::array();
    for (const VmdkExtentLine& line : descriptor.extents) {
      extents.push_back(extent_json(bytes_of(line.sectors), line.file.name, line.type));
      add_name(line, line.has_file());
      if (line.file.name == file_name(file_.path)) {
        refuse("own-extent", fmt::format("descriptor line {}: the image names itself, \"{}\", as "
                                         "its extent",
                                         line.line, printable(line.file.name, 200)));
      }
    }
    check_overlaps(descriptor.extents);
    finish(descriptor, std::move(extents));
  }

  // Of extents with equal names; other names may also lead to the same file.
  void check_overlaps(std::vector<VmdkExtentLine> lines) {
    std::erase_if(lines, [](const VmdkExtentLine& line) { return line.file.name.empty(); });
    std::sort(lines.begin(), lines.end(), [](const VmdkExtentLine& a, const VmdkExtentLine& b) {
      return std::tie(a.file.name, a.offset) < std::tie(b.file.name, b.offset);
    });
    for (size_t i = 1; i < lines.size(); ++i) {
      const VmdkExtentLine& a = lines[i - 1];
      const VmdkExtentLine& b = lines[i];
      if (a.file.name != b.file.name || !range_of(a).overlaps(range_of(b))) continue;
      refuse("extents-overlap",
             fmt::format("the extents of descriptor lines {} and {} overlap in \"{}\"",
                         std::min(a.line, b.line), std::max(a.line, b.line),
                         printable(a.file.name, 200)));
    }
  }

  void add_name(const VmdkExtentLine& line, bool followed) {
    if (line.file.name.empty()) return;
    NameInImage name{
        .role = "extent", .name = line.file.name, .format = line.type, .followed = followed};
    if (followed && line.kind == VmdkExtentLine::Kind::kFlat) {
      const uint64_t sectors = std::min(line.sectors, kVmdkMaxSectors);
      name.range = {.offset = bytes_of(std::min(line.offset, kVmdkMaxSectors - sectors)),
                    .length = bytes_of(sectors)};
    }
    if (!line.file.as_written.empty()) name.otherwise.push_back(line.file.as_written);
    facts_.names.push_back(std::move(name));
  }

  // ---- what qemu-img calls format specific ----

  Json extent_json(uint64_t size, const std::string& name, std::string_view type) const {
    Json extent = Json::object();
    if (facts_.compressed) extent["compressed"] = true;
    extent["virtual-size"] = size;
    extent["filename"] = name.empty() ? source_.name() : path_of_extent(source_.name(), name);
    if (facts_.cluster_size) extent["cluster-size"] = *facts_.cluster_size;
    extent["format"] = type;
    return extent;
  }

  void finish(const VmdkDescriptor& descriptor, Json extents) {
    if (descriptor.cid) facts_.identity = fmt::format("{:08x}", *descriptor.cid);
    facts_.backing_filename = descriptor.parent_file_name_hint.name;
    facts_.encrypted = std::any_of(facts_.findings.begin(), facts_.findings.end(),
                                   [](const Finding& f) { return f.code == "encrypted"; });
    Json& data = facts_.specific;
    if (descriptor.cid) data["cid"] = *descriptor.cid;
    data["parent-cid"] = descriptor.parent_cid.value_or(kVmdkNoParent);
    data["create-type"] = descriptor.create_type;
    data["extents"] = std::move(extents);
    if (descriptor.version) data["descriptor-version"] = *descriptor.version;
    if (!descriptor.encoding.empty()) data["encoding"] = descriptor.encoding;
    if (!header_.empty()) data["header"] = std::move(header_);
    if (!facts_.backing_filename.empty()) {
      facts_.backing_filename_format = "vmdk";  // nothing else can be one's parent
      auto names = vmdk_parent_names(descriptor.parent_file_name_hint);
      facts_.names.push_back({.role = "parent",
                              .name = facts_.backing_filename,
                              .format = "vmdk",
                              .otherwise = {names.begin() + 1, names.end()}});
    }
    Json lines = Json::object();
    Json database = Json::object();
    for (const VmdkDescriptorEntry& entry : descriptor.others) add_entry(entry, lines, database);
    if (!lines.empty()) data["other-lines"] = std::move(lines);
    if (!database.empty()) data["ddb"] = std::move(database);
  }

  // Keys are text of the image, and so have objects of their own.
  void add_entry(const VmdkDescriptorEntry& entry, Json& lines, Json& database) {
    constexpr std::string_view kDatabase = "ddb.";
    if (entry.key.starts_with(kDatabase)) {
      database[entry.key.substr(kDatabase.size())] = entry.value;
    } else {
      lines[entry.key] = entry.value;
    }
    const auto role = [&]() -> std::string_view {
      if (entry.key == "changeTrackPath") return "change tracking";
      if (entry.key == "digestFilename") return "digest";
      if (entry.key == "ddb.sidecars") return "sidecar";
      return "";
    }();
    if (!role.empty() && !entry.value.empty()) {
      facts_.names.push_back({.role = std::string(role), .name = entry.value, .followed = false});
    }
  }

  const FileToInspect& file_;
  const Source& source_;
  VmdkHead head_;
  ImageFacts facts_;
  Json header_;
};

}  // namespace

Result<ImageFacts> describe_vmdk(const FileToInspect& file) {
  return VmdkDescriber(file, TRY(read_vmdk_head(*file.source))).describe();
}

}  // namespace underlay
