#include "tools/thin/image_plan.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>

#include "formats/container/container.h"
#include "formats/format_table.h"
#include "formats/open_chain.h"
#include "formats/options/chain_options.h"
#include "io/http/remote_name.h"
#include "io/open_source.h"
#include "tools/thin/file_stamp.h"
#include "tools/thin/image_location.h"
#include "tools/thin/plan_message.h"
#include "tools/thin/unprivileged.h"

namespace underlay::thin {
namespace {

constexpr size_t kMaxWarnings = 32;

// What a name leads to now.
struct Place {
  std::string path;
  FileIdentity identity;
};

Failure cannot_look_at(const std::string& path) {
  Error error = fail_errno(errno, "cannot look at it").value();
  if (error.sys_errno == ENOENT || error.sys_errno == ENOTDIR) error.kind = ErrorKind::kNotFound;
  if (error.sys_errno == EACCES) error.kind = ErrorKind::kDenied;
  return in_file(std::move(error), path);
}

Result<Place> place_of(const std::string& name) {
  struct stat status;
  char path[PATH_MAX];
  if (::stat(name.c_str(), &status) != 0) return cannot_look_at(name);
  if (S_ISBLK(status.st_mode)) {
    return Place{.path = TRY(with_resolved_folder(name)),
                 .identity = {.device = status.st_rdev, .inode = 0}};
  }
  if (::realpath(name.c_str(), path) == nullptr) return cannot_look_at(name);
  return Place{.path = path, .identity = {.device = status.st_dev, .inode = status.st_ino}};
}

// ---- in the child

// Opens the top image; a format that was not given is guessed and filled in.
Result<OpenedFile> open_top(ImageChoice& choice, Caches& caches) {
  const ImageLocation location = image_location(choice.location);
  OpenedFile top{.source = TRY(open_source(location.file, FileSharing::kNoWriter)),
                 .path = location.file};
  if (!choice.format.empty()) return top;
  const ContainedImage image = TRY(look_into(top, "", location.member, caches));
  const Guess guess = TRY(guess_format(*image.file.source));
  if (guess.format == nullptr) {
    return fail(ErrorKind::kUsage, "{}: if it is a raw image, say --format raw",
                guess.damaged.empty()
                    ? "shows no signs of a format"
                    : fmt::format("looks like a damaged image of format {}", guess.damaged));
  }
  choice.format = guess.format->name;
  return top;
}

Result<OpenedDisk> open_chain(ImageChoice& choice, Caches& caches) {
  const auto files = TRY(Confinement::create(choice.allow_paths));
  OpenOptions options;
  auto top = TRY(open_top(choice, caches));
  options.format = choice.format;
  options.backing_format = choice.backing_format;
  for (const std::string& parent : choice.parents) {
    options.parents.push_back(TRY(parse_parent_path("--parent", parent)));
  }
  // A member is found by its name once more.
  if (top.path != choice.location) return open_disk(choice.location, options, files, caches);
  return open_disk(std::move(top), options, files, caches);
}

// Stamps of all files of the chain, each once, and which of them a source is.
class Stamps {
 public:
  Result<void> add(const Source& part) {
    const Source& source = part.file();
    if (is_remote_name(source.name())) return add_object(source);
    if (!source.fd()) return in_file(fail(ErrorKind::kUnsupported, "is no file"), source.name());
    const Place place = TRY(place_of(source.name()));
    if (place.identity != source.identity()) {
      return in_file(fail(ErrorKind::kIo, "was replaced while it was opened: try again"),
                     source.name());
    }
    note(source, TRY(stamp_of(*source.fd(), place.path)));
    return {};
  }
  size_t index_of(const Source* source) const {
    return std::find_if(sources_.begin(), sources_.end(),
                        [&](const auto& known) { return known.first == source; })
        ->second;
  }

  std::vector<FileStamp> files;

 private:
  Result<void> add_object(const Source& source) {
    const auto version = source.content_id();
    if (!version) {
      return in_file(
          fail(ErrorKind::kUnsupported,
               "its server states no strong ETag: nobody could tell after a boot whether "
               "it is still what volumes were made on"),
          source.name());
    }
    note(source,
         {.path = source.name(), .size = source.size(), .mtime_ns = 0, .version = *version});
    return {};
  }

  void note(const Source& source, FileStamp stamp) {
    const auto known = std::find(files.begin(), files.end(), stamp);
    sources_.emplace_back(&source, static_cast<size_t>(known - files.begin()));
    if (known == files.end()) files.push_back(std::move(stamp));
  }

  std::vector<std::pair<const Source*, size_t>> sources_;
};

Result<void> add_direct_map(const Disk& disk, const Stamps& stamps, PlanMessage& plan,
                            std::vector<UniqueFd>& descriptors) {
  auto map = make_direct_map(disk);
  if (!map) {
    plan.reason = map.error().to_string();
    return {};
  }
  for (const Source* source : map->files) {
    descriptors.emplace_back(::fcntl(*source->fd(), F_DUPFD_CLOEXEC, 0));
    if (!descriptors.back().valid()) return fail_errno(errno, "cannot copy a descriptor");
    plan.descriptor_files.push_back(stamps.index_of(source));
  }
  plan.direct = true;
  plan.runs = std::move(map->runs);
  plan.reason = std::move(map->reason);
  return {};
}

Result<ChildMessage> read_image(ImageChoice choice, PlanFor purpose) {
  // Clusters: of a file that was compressed whole, so that not every piece of a table has a block
  // of it unpacked anew.
  Caches caches({.tables = 64 << 20, .clusters = 128 << 20});
  OpenedDisk opened = TRY(open_chain(choice, caches));
  const Disk& disk = *opened.disk;
  Stamps stamps;
  for (const Layer& layer : disk.layers()) {
    for (const Source* source : layer.reader->sources()) TRY(stamps.add(*source));
  }
  PlanMessage plan;
  plan.format = find_format(choice.format)->name;  // an alias was a name, too
  plan.size = disk.size();
  opened.warnings.resize(std::min(opened.warnings.size(), kMaxWarnings));
  plan.warnings = std::move(opened.warnings);
  ChildMessage message;
  if (purpose == PlanFor::kDirectMap) {
    TRY(add_direct_map(disk, stamps, plan, message.descriptors));
  }
  TRY(disk.check_unchanged());  // the stamps are those of what was mapped
  plan.files = std::move(stamps.files);
  message.bytes = to_bytes(plan);
  return message;
}

// ---- in the parent

bool names_far_parent(const std::string& parent) {
  return is_remote_name(std::string_view(parent).substr(parent.find('=') + 1));
}

void count_sectors(ImagePlan& plan) {
  for (const DirectRun& run : plan.runs) {
    switch (run.kind) {
      case DirectRun::Kind::kFile:
        plan.file_sectors += run.sectors;
        break;
      case DirectRun::Kind::kZero:
        plan.zero_sectors += run.sectors;
        break;
      case DirectRun::Kind::kServer:
        plan.server_sectors += run.sectors;
        break;
    }
  }
}

Result<ImagePlan> plan_of(ChildMessage answer) {
  PlanMessage message = TRY(plan_message_of(answer.bytes));
  TRY(check_descriptors(message, answer.descriptors));
  ImagePlan plan;
  plan.format = std::move(message.format);
  plan.size = message.size;
  plan.direct = message.direct;
  plan.runs = std::move(message.runs);
  plan.descriptors = std::move(answer.descriptors);
  for (const size_t file : message.descriptor_files) {
    plan.paths.push_back(message.files[file].path);
  }
  plan.files = std::move(message.files);
  plan.reason = printable(message.reason, 1000);
  for (const std::string& warning : message.warnings) plan.warnings.push_back(printable(warning));
  count_sectors(plan);
  return plan;
}

}  // namespace

bool is_nbd_uri(const std::string& location) {
  constexpr std::array kSchemes{"nbd://", "nbd+unix://", "nbds://", "nbds+unix://"};
  return std::any_of(kSchemes.begin(), kSchemes.end(),
                     [&](const char* scheme) { return location.starts_with(scheme); });
}

ImageChoice choice_of(const ImageRecord& image) {
  return {.location = image.location,
          .format = image.format,
          .backing_format = image.backing_format,
          .allow_paths = image.allow_paths,
          .parents = image.parents};
}

Result<ImagePlan> plan_image(const ImageChoice& choice, PlanFor purpose) {
  ImageChoice resolved = choice;
  if (!choice.format.empty() && find_format(choice.format) == nullptr) {
    return fail(ErrorKind::kUsage, "--format {}: is not one of: {}", printable(choice.format, 80),
                format_names());
  }
  ImageLocation location = image_location(choice.location);
  const bool is_far = is_remote_name(location.file);
  if (!is_far) location.file = TRY(place_of(location.file)).path;
  resolved.location = location.text();
  ChildLimits limits;
  limits.starts_others = is_far || std::ranges::any_of(choice.parents, names_far_parent);
  auto answer = run_unprivileged(
      location.file, [&] { return read_image(resolved, purpose); }, limits);
  if (!answer) {
    if (answer.error().kind == ErrorKind::kDenied) {
      answer.error().message += unprivileged_user_words();
    }
    return Failure(std::move(answer).error());
  }
  auto plan = plan_of(*std::move(answer));
  if (!plan) {
    return in_file(with_context(std::move(plan).error(), "the process that reads it "),
                   resolved.location);
  }
  if (plan->size == 0) {
    return in_file(fail(ErrorKind::kUnsupported, "has a disk of 0 bytes, and a device needs some"),
                   resolved.location);
  }
  plan->location = std::move(resolved.location);
  return plan;
}

std::vector<AllocatedRun> allocated_runs(const std::vector<DirectRun>& runs) {
  std::vector<AllocatedRun> allocated;
  for (const DirectRun& run : runs) {
    if (run.kind == DirectRun::Kind::kZero) continue;
    if (!allocated.empty() && allocated.back().start + allocated.back().sectors == run.start) {
      allocated.back().sectors += run.sectors;
    } else {
      allocated.push_back({.start = run.start, .sectors = run.sectors});
    }
  }
  return allocated;
}

Result<void> check_unchanged(const ImageRecord& image) {
  for (const FileStamp& was : image.files) {
    // Its server sees to it; who starts one asks check_objects().
    if (was.is_object()) continue;
    // Looked at first: the names came from the process that read the image, and opening some
    // devices has an effect (a tape rewinds, a watchdog starts).
    struct stat status;
    if (::stat(was.path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) &&
        !S_ISBLK(status.st_mode)) {
      return in_file(
          fail(ErrorKind::kUnsupported, "is neither a file nor a block device: {}", kPutImageBack),
          was.path);
    }
    const UniqueFd fd(::open(was.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!fd.valid() && errno == ENOENT) {
      return in_file(
          fail(ErrorKind::kNotFound, "is missing, and volumes lie on it: put the original back"),
          was.path);
    }
    if (!fd.valid()) return in_file(fail_errno(errno, "cannot open"), was.path);
    const FileStamp now = TRY(stamp_of(fd.get(), was.path));
    TRY(check_stamp(was, now));
  }
  return {};
}

Result<void> check_objects(const ImageRecord& image) {
  if (!image.has_objects()) return {};
  return check_unchanged(image, TRY(plan_image(choice_of(image), PlanFor::kStamps)));
}

Result<void> check_unchanged(const ImageRecord& image, const ImagePlan& plan) {
  for (size_t i = 0; i < std::max(image.files.size(), plan.files.size()); ++i) {
    const std::string was = i < image.files.size() ? image.files[i].path : "no file";
    const std::string now = i < plan.files.size() ? plan.files[i].path : "no file";
    if (was != now) {
      return in_file(
          fail(ErrorKind::kIo, "its chain changed since volumes were made on it ({}, was {}): {}",
               now, was, kPutImageBack),
          image.location);
    }
    TRY(check_stamp(image.files[i], plan.files[i]));
  }
  if (image.size != plan.size) {
    return in_file(fail(ErrorKind::kIo, "its disk has {} bytes now, not {}: {}", plan.size,
                        image.size, kPutImageBack),
                   image.location);
  }
  return {};
}

}  // namespace underlay::thin
