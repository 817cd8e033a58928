#include "server/export.h"

#include <algorithm>
#include <climits>
#include <filesystem>

#include "server/limits.h"

namespace underlay {

namespace fs = std::filesystem;

Export::Export(std::string name, std::string description, std::shared_ptr<const Disk> disk,
               uint64_t start)
    : name_(std::move(name)),
      description_(std::move(description)),
      disk_(std::move(disk)),
      start_(start) {}

void Export::check_unchanged(Log& log) {
  if (changed()) return;
  const Result<void> unchanged = disk_->check_unchanged();
  if (unchanged || changed_.exchange(true)) return;
  log.error(
      fmt::format("{}; reads of the export \"{}\" fail from now on, restart to serve the "
                  "new content",
                  unchanged.error().to_string(), name_));
}

ExportCatalog::ExportCatalog(Folder folder, const NamedFiles& files, Caches& caches, Log& log)
    : folder_(std::move(folder)), files_(files), caches_(caches), log_(log) {}

void ExportCatalog::add(std::shared_ptr<Export> fixed) {
  const std::string name = fixed->name();
  fixed_.emplace(name, std::move(fixed));
}

Result<std::shared_ptr<Export>> ExportCatalog::open(const std::string& name) {
  const auto found = fixed_.find(name);
  if (found != fixed_.end()) return found->second;
  const bool plain = !name.empty() && name.size() <= NAME_MAX && name.front() != '.' &&
                     name.find('/') == std::string::npos;
  if (folder_.path.empty() || !plain) {
    return fail(ErrorKind::kNotFound, "no export \"{}\"", printable(name, 256));
  }
  auto opened = open_from_folder(name);
  if (!opened && opened.error().kind != ErrorKind::kNotFound) {
    log_.error(opened.error().to_string());
  }
  return opened;
}

// The export that serves this very file, if there is one. REQUIRES: mutex_ is held.
std::shared_ptr<Export> ExportCatalog::shared_export(const std::string& name,
                                                     const FileIdentity& identity) {
  const auto [first, last] = from_folder_.equal_range(name);
  for (auto entry = first; entry != last; ++entry) {
    auto shared = entry->second.opened.lock();
    if (shared && entry->second.identity == identity && !shared->changed()) return shared;
  }
  return nullptr;
}

Result<std::shared_ptr<Export>> ExportCatalog::open_from_folder(const std::string& name) {
  const std::string folder_member = (fs::path(folder_.path) / "image").string();
  auto file = files_.open(folder_member, name);
  if (!file) {
    file.error().file = folder_.path;
    return Failure(std::move(file).error());
  }
  const FileIdentity identity = file->source->identity().value_or(FileIdentity{});
  {
    const std::lock_guard lock(mutex_);
    if (auto shared = shared_export(name, identity)) return shared;
  }
  auto opened = open_disk(*std::move(file), OpenOptions{}, files_, caches_);
  if (!opened) {
    // The image is there: what was not found is a file that it names.
    if (opened.error().kind == ErrorKind::kNotFound) opened.error().kind = ErrorKind::kMalformed;
    return Failure(std::move(opened).error());
  }
  for (const std::string& warning : opened->warnings) log_.warn(warning);
  if (folder_.start > opened->disk->size()) {
    return fail(ErrorKind::kUsage, "{}: offset {} lies beyond its size, {} bytes", name,
                folder_.start, opened->disk->size());
  }
  auto made =
      std::make_shared<Export>(name, folder_.description, std::move(opened->disk), folder_.start);
  const std::lock_guard lock(mutex_);
  // Another client's look-up may have been faster.
  if (auto shared = shared_export(name, identity)) return shared;
  std::erase_if(from_folder_, [](const auto& entry) { return entry.second.opened.expired(); });
  from_folder_.emplace(name, FromFolder{.opened = made, .identity = identity});
  return made;
}

std::vector<ExportDescription> ExportCatalog::list() const {
  std::vector<ExportDescription> all;
  for (const auto& [name, fixed] : fixed_) all.push_back(fixed->describe());
  if (folder_.path.empty()) return all;
  std::error_code error;
  std::error_code ignored;  // of single files: then they are not listed
  std::vector<std::string> names;
  for (fs::directory_iterator entry(folder_.path, error), end; entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.front() == '.' || name.size() > nbd::kMaxString || fixed_.contains(name)) continue;
    if (!entry->is_regular_file(ignored)) continue;
    if (names.size() == limits::kListedExports) break;
    names.push_back(name);
  }
  if (error) log_.error(fmt::format("{}: cannot list: {}", folder_.path, error.message()));
  std::sort(names.begin(), names.end());
  for (std::string& name : names) {
    all.push_back({.name = std::move(name), .description = folder_.description});
  }
  return all;
}

std::vector<std::shared_ptr<Export>> ExportCatalog::in_use() {
  std::vector<std::shared_ptr<Export>> exports;
  for (const auto& [name, fixed] : fixed_) exports.push_back(fixed);
  const std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : from_folder_) {
    if (auto opened = entry.opened.lock()) exports.push_back(std::move(opened));
  }
  return exports;
}

void ExportCatalog::check_unchanged() {
  for (const auto& exported : in_use()) exported->check_unchanged(log_);
}

}  // namespace underlay
