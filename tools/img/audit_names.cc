#include "tools/img/audit_names.h"

#include <fmt/format.h>

#include <limits>
#include <tuple>

#include "formats/file_name.h"
#include "formats/format_table.h"

namespace underlay::img {
namespace {

// More names than this are a smell: thousands of files to be held open.
constexpr size_t kManyNames = 1000;

std::string in_quotes(const std::string& name) {
  return fmt::format("\"{}\"", printable(name, 200));
}

// "nbd://host" and "json:{...}", but no drive letter of Windows.
bool has_protocol(const std::string& name) { return names_protocol(name) && name.find(':') > 1; }

bool is_parent(const NameInImage& name) {
  return name.role.starts_with("parent") || name.role.starts_with("backing");
}

// Where a name leads, and what is wrong with that.
struct Place {
  std::string path{};  // "" when it is not known
  bool inside = false;
  bool missing = false;
  std::optional<FileIdentity> identity{};
  std::string code{};  // of the rule that is in the way; "" when none is
  std::string why{};
};

// The bytes that a name takes of the file that it leads to.
struct FileUse {
  FileIdentity identity;
  FileRange range;
  std::string name;
};

class NameAudit {
 public:
  NameAudit(const LoneImage& image, bool is_export, AuditReport& report)
      : image_(image), is_export_(is_export), report_(report) {}

  void run(const NamesToAudit& names) {
    std::vector<std::string> parents;
    std::string parent_role;
    bool has_others = false;
    for (const NameInImage& name : names.names) {
      if (name.followed && is_parent(name)) {
        const std::string& format = name.format.empty() ? names.parent_format : name.format;
        if (parent_role.empty()) {
          parent_role = name.role;
          audit_parent_format(name, format);
        }
        parents.push_back(name.name);
        parents.insert(parents.end(), name.otherwise.begin(), name.otherwise.end());
        add_touch(name, format, locate(name.name, 0));
      } else {
        has_others = has_others || name.followed;
        audit_file(name);
      }
    }
    if (!has_others && !names.asked.empty()) parents = names.asked;
    if (!parents.empty()) audit_parent(parent_role.empty() ? "parent" : parent_role, parents);
    audit_overlaps();
    for (const std::string& member : image_.members) audit_member(member);
    if (names.names.size() > kManyNames) {
      report_.warn("many-files", fmt::format("it names {} files: serving it holds them open",
                                             names.names.size()));
    }
  }

 private:
  void add_touch(const NameInImage& name, const std::string& format, const Place& place) {
    report_.add_touch({.role = name.role,
                       .name = name.name,
                       .format = format,
                       .resolved = place.path,
                       .inside = place.inside});
  }

  // A file that is not the parent: each one must be there.
  void audit_file(const NameInImage& name) {
    Place place = locate(name.name, name.least_bytes());
    for (const std::string& other : name.otherwise) {
      if (!place.missing) break;
      const Place next = locate(other, name.least_bytes());
      if (!next.missing) place = next;
    }
    const std::string what = fmt::format("{} {}", name.role, in_quotes(name.name));
    if (!name.followed) {
      // Nobody opens it here, but others may.
      const bool leads_away =
          place.code == "outside" || place.code == "protocol" || place.code == "device";
      if (leads_away) report_.warn(place.code, what + " " + place.why);
      return;
    }
    add_touch(name, name.format, place);
    if (place.identity) {
      const FileRange all{.offset = 0, .length = std::numeric_limits<uint64_t>::max()};
      uses_.push_back({*place.identity, name.range.value_or(all), name.name});
    }
    if (!place.code.empty()) {
      report_.refuse(place.code, what + " " + place.why);
    } else {
      report_.warn("touches-file", what + " is another file: serving the image opens it");
    }
  }

  // By other spellings or hard links; of equal names the format's own description tells.
  void audit_overlaps() {
    const auto place_of = [](const FileUse& use) {
      return std::tie(use.identity.device, use.identity.inode, use.identity.start,
                      use.range.offset);
    };
    std::sort(uses_.begin(), uses_.end(),
              [&](const FileUse& a, const FileUse& b) { return place_of(a) < place_of(b); });
    size_t furthest = 0;  // which of those before ends last
    for (size_t i = 1; i < uses_.size(); ++i) {
      const FileUse& before = uses_[furthest];
      const FileUse& use = uses_[i];
      const bool same = use.identity == before.identity;
      if (same && use.name != before.name && use.range.overlaps(before.range)) {
        report_.refuse("extents-overlap",
                       fmt::format("{} and {} lead to the same bytes of one file",
                                   in_quotes(before.name), in_quotes(use.name)));
      }
      const bool ends_later =
          use.range.length > before.range.length &&
          use.range.offset - before.range.offset > use.range.length - before.range.length;
      if (!same || ends_later) furthest = i;
    }
  }

  void audit_parent_format(const NameInImage& name, const std::string& format) {
    if (format.empty() || find_format(format) != nullptr) return;
    report_.refuse("parent-format",
                   fmt::format("{} {} has the format \"{}\", which is not one of: {}", name.role,
                               in_quotes(name.name), printable(format, 80), format_names()));
  }

  // Of several names the first that leads to something counts, as for the server.
  void audit_parent(const std::string& role, const std::vector<std::string>& names) {
    Place place;
    std::string name;
    for (const std::string& candidate : names) {
      const Place next = locate(candidate, 0);
      if (name.empty() || !next.missing) {
        place = next;
        name = candidate;
      }
      if (!next.missing) break;
      if (next.code == "protocol" && names.size() > 1) {
        report_.warn(next.code, fmt::format("{} {} {}", role, in_quotes(candidate), next.why));
      }
    }
    const std::string what = fmt::format("{} {}", role, in_quotes(name));
    if (place.code.empty()) {
      report_.warn("touches-file", what + " is another image, to be audited as well");
    } else {
      report_.refuse(place.code == "missing" ? "parent-missing" : place.code,
                     what + " " + place.why);
    }
  }

  // Nothing is unpacked here, but somebody may do so with the archive.
  void audit_member(const std::string& name) {
    const std::string path = "/" + name + "/";
    if (!name.starts_with('/') && path.find("/../") == std::string::npos) return;
    report_.warn("archive-member", fmt::format("the archive has a file {}, which would be unpacked "
                                               "outside its folder",
                                               in_quotes(name)));
  }

  Place locate(const std::string& name, uint64_t least_bytes) const {
    if (has_protocol(name)) {
      return {.missing = true,
              .code = "protocol",
              .why = fmt::format("has the protocol \"{}\": it is no file",
                                 printable(name.substr(0, name.find(':')), 80))};
    }
    if (is_export_) {
      return {.code = "outside", .why = "is another file, and from an NBD export none is opened"};
    }
    if (image_.files) return locate_in_archive(name);
    const auto found = locate_named_file(image_.file.path, name);
    if (!found)
      return {.code = "file-name", .why = "is no name of a file: " + found.error().message};
    return judged(*found, least_bytes);
  }

  Place judged(const NamedPlace& found, uint64_t least_bytes) const {
    using Kind = NamedPlace::Kind;
    Place place{.path = found.path, .inside = found.inside};
    place.missing = found.kind == Kind::kMissing;
    if (!place.missing) place.identity = found.identity;
    const auto is_wrong = [&](std::string_view code, std::string why) {
      place.code = code;
      place.why = std::move(why);
      return place;
    };
    if (found.kind == Kind::kDevice) return is_wrong("device", "is a device");
    if (!found.inside) {
      return is_wrong("outside",
                      fmt::format("leads out of the image's folder, to {}", in_quotes(found.path)));
    }
    if (place.missing) return is_wrong("missing", "is not there");
    if (found.kind != Kind::kFile) return is_wrong("no-regular-file", "is no regular file");
    if (image_.file.source->identity() == found.identity) {
      return is_wrong("names-itself", "is the image itself");
    }
    if (found.size < least_bytes) {
      return is_wrong("file-too-short", fmt::format("has {} bytes, but the image needs {} of it",
                                                    found.size, least_bytes));
    }
    return place;
  }

  // Members are parts of the file that is open already.
  Place locate_in_archive(const std::string& name) const {
    const auto opened = image_.files->open(image_.file.path, name);
    if (opened) return {.path = opened->path, .inside = true};
    if (opened.error().kind == ErrorKind::kNotFound) {
      return {.inside = true, .missing = true, .code = "missing", .why = "is not in the archive"};
    }
    return {.code = "outside", .why = "leads out of the archive"};
  }

  const LoneImage& image_;
  bool is_export_;
  AuditReport& report_;
  std::vector<FileUse> uses_;
};

}  // namespace

Result<OpenedFile> MissingFiles::open(const std::string& namer, std::string_view name) const {
  asked_.emplace_back(name);
  return in_file(fail(ErrorKind::kNotFound, "names the file \"{}\", which is not opened here",
                      printable(name, 200)),
                 namer);
}

void audit_names(const LoneImage& image, bool is_export, const NamesToAudit& names,
                 AuditReport& report) {
  NameAudit(image, is_export, report).run(names);
}

}  // namespace underlay::img
