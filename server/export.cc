#include "server/export.h"

#include <algorithm>
#include <cassert>
#include <climits>
#include <filesystem>

#include "server/limits.h"

namespace underlay {

namespace fs = std::filesystem;

namespace {

// FNV-1a, 64 bits.
class Fingerprint {
 public:
  void add(std::string_view text) {
    for (const char c : text) add_byte(static_cast<uint8_t>(c));
    add(text.size());
  }
  void add(uint64_t number) {
    for (unsigned shift = 0; shift < 64; shift += 8)
      add_byte(static_cast<uint8_t>(number >> shift));
  }
  uint64_t value() const { return value_; }

 private:
  void add_byte(uint8_t byte) { value_ = (value_ ^ byte) * 0x100000001b3; }
  uint64_t value_ = 0xcbf29ce484222325;
};

uint64_t fingerprint_of(const Disk& disk, std::string_view snapshot,
                        const std::vector<ExportedBitmap>& bitmaps) {
  Fingerprint print;
  print.add(snapshot);
  print.add(disk.unpadded_size());
  for (const Layer& layer : disk.layers()) {
    print.add(layer.reader->size());
    for (const Source* source : layer.reader->sources()) {
      const FileIdentity identity = source->identity().value_or(FileIdentity{});
      print.add(identity.device);
      print.add(identity.inode);
      if (identity.start != 0) print.add(identity.start);
    }
  }
  for (const ExportedBitmap& bitmap : bitmaps) print.add(bitmap.name);
  return print.value();
}

}  // namespace

Export::Export(std::string name, std::string description, std::shared_ptr<const Disk> disk,
               std::string_view snapshot, std::vector<ExportedBitmap> bitmaps)
    : name_(std::move(name)),
      description_(std::move(description)),
      disk_(std::move(disk)),
      bitmaps_(std::move(bitmaps)),
      fingerprint_(fingerprint_of(*disk_, snapshot, bitmaps_)) {
  assert(bitmaps_.size() <= limits::kDirtyBitmaps);
}

ExportDescription Export::describe() const {
  ExportDescription description{.name = name_, .description = description_, .size = size()};
  for (const ExportedBitmap& bitmap : bitmaps_) description.dirty_bitmaps.push_back(bitmap.name);
  return description;
}

void Export::check_unchanged(Log& log) {
  const Source* replaced = disk_->find_replaced();
  if (replaced != nullptr && !replaced_.exchange(true)) {
    log.warn(
        fmt::format("{}: is another file now; the export \"{}\" goes on with the one that was "
                    "opened, restart to serve the new one",
                    replaced->name(), name_));
  }
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

Result<OpenedFile> ExportCatalog::open_file(const std::string& name) const {
  // Names are confined to the folder of the file that they stand in: here, any file of the folder.
  auto file = files_.open((fs::path(folder_.path) / name).string(), name);
  if (!file) file.error().file = folder_.path;
  return file;
}

Result<std::shared_ptr<Export>> ExportCatalog::open_from_folder(const std::string& name) {
  OpenedFile file = TRY(open_file(name));
  const FileIdentity identity = file.source->identity().value_or(FileIdentity{});
  if (auto shared = find_shared(name, identity)) return shared;
  OpenedDisk opened = TRY(open_disk(std::move(file), folder_.open, files_, caches_));
  for (const std::string& warning : opened.warnings) log_.warn(warning);
  auto made = std::make_shared<Export>(name, folder_.description, std::move(opened.disk));

  // Another client may have been faster; and whatever is served stays listed until it is gone.
  if (auto shared = find_shared(name, identity)) return shared;
  const std::lock_guard lock(mutex_);
  std::erase_if(from_folder_, [](const FromFolder& entry) { return entry.opened.expired(); });
  from_folder_.push_back(FromFolder{.name = name, .identity = identity, .opened = made});
  return made;
}

std::shared_ptr<Export> ExportCatalog::find_shared(const std::string& name,
                                                   const FileIdentity& identity) {
  const std::lock_guard lock(mutex_);
  for (const FromFolder& entry : from_folder_) {
    if (entry.name != name || entry.identity != identity) continue;
    auto shared = entry.opened.lock();
    if (shared && !shared->changed()) return shared;
  }
  return nullptr;
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
    // A link may lead to where no client is led.
    if (entry->is_symlink(ignored) && !open_file(name)) continue;
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
  for (const FromFolder& entry : from_folder_) {
    if (auto opened = entry.opened.lock()) exports.push_back(std::move(opened));
  }
  return exports;
}

std::vector<std::shared_ptr<Export>> ExportCatalog::with_clients() {
  std::vector<std::shared_ptr<Export>> exports = in_use();
  // Held by the catalogue, by this list, and by whom else? Those of a folder only by clients.
  std::erase_if(exports, [this](const std::shared_ptr<Export>& entry) {
    const auto found = fixed_.find(entry->name());
    const bool fixed = found != fixed_.end() && found->second == entry;
    return entry.use_count() <= (fixed ? 2 : 1);
  });
  return exports;
}

void ExportCatalog::check_unchanged() {
  for (const auto& exported : in_use()) exported->check_unchanged(log_);
}

}  // namespace underlay
