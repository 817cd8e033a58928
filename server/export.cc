#include "server/export.h"

#include <algorithm>
#include <cassert>
#include <climits>
#include <filesystem>

#include "server/entry_fields.h"
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
      if (!source->identity()) print.add(source->name());
    }
  }
  for (const ExportedBitmap& bitmap : bitmaps) print.add(bitmap.name);
  return print.value();
}

}  // namespace

Export::Export(std::string name, std::string description, std::shared_ptr<const Disk> disk,
               std::string_view snapshot, std::vector<ExportedBitmap> bitmaps,
               ExportService service)
    : name_(std::move(name)),
      description_(std::move(description)),
      disk_(std::move(disk)),
      far_(disk_->is_far()),
      bitmaps_(std::move(bitmaps)),
      fingerprint_(fingerprint_of(*disk_, snapshot, bitmaps_)),
      service_(std::move(service)) {
  assert(bitmaps_.size() <= limits::kDirtyBitmaps);
}

ExportDescription Export::describe() const {
  ExportDescription description{.name = name_, .description = description_, .size = size()};
  description.needs_tls = rule().needs_tls;
  for (const ExportedBitmap& bitmap : bitmaps_) description.dirty_bitmaps.push_back(bitmap.name);
  return description;
}

void Export::check_unchanged(Log& log) {
  const Source* replaced = disk_->find_replaced();
  if (replaced != nullptr && !replaced_.exchange(true)) {
    log.warn(fmt::format("{}: is another file now; the export \"{}\" goes on with the one that was "
                         "opened, restart to serve the new one",
                         replaced->name(), name_),
             EntryFields().exported(name_).file(replaced->name()));
  }
  if (changed()) return;
  const Result<void> unchanged = disk_->check_unchanged();
  if (unchanged || changed_.exchange(true)) return;
  log.error(fmt::format("{}; reads of the export \"{}\" fail from now on, restart to serve the "
                        "new content",
                        unchanged.error().to_string(), name_),
            EntryFields().exported(name_).error(unchanged.error()));
}

ExportCatalog::ExportCatalog(Folder folder, const NamedFiles& files, Caches& caches, Log& log)
    : folder_(std::move(folder)), files_(files), caches_(caches), log_(log) {}

Result<void> ExportCatalog::add(std::shared_ptr<Export> fixed) {
  const std::lock_guard lock(mutex_);
  const std::string name = fixed->name();
  if (fixed_.emplace(name, std::move(fixed)).second) return {};
  return fail(ErrorKind::kUsage, "there is an export \"{}\" already: remove it first",
              printable(name, 256));
}

void ExportCatalog::replace(std::shared_ptr<Export> fixed) {
  const std::lock_guard lock(mutex_);
  std::swap(fixed_[fixed->name()], fixed);
  if (fixed) hide(fixed);
}  // the caller's pointer is closed last, without the mutex: that may block

// REQUIRES: mutex_ is held.
void ExportCatalog::hide(const std::shared_ptr<Export>& fixed) {
  std::erase_if(hidden_, [](const std::weak_ptr<Export>& entry) { return entry.expired(); });
  hidden_.push_back(fixed);
}

Result<unsigned> ExportCatalog::remove(const std::string& name, WhenUsed when_used) {
  std::shared_ptr<Export> removed;  // closed, maybe, without the mutex
  const std::lock_guard lock(mutex_);
  const auto found = fixed_.find(name);
  if (found == fixed_.end()) {
    return fail(ErrorKind::kNotFound, "no export \"{}\" that could be removed",
                printable(name, 256));
  }
  const unsigned clients = found->second->clients();
  if (clients > 0 && when_used == WhenUsed::kStay) {
    return fail(ErrorKind::kUsage,
                "{} clients use the export \"{}\": with hide it is offered to no others, and gone "
                "when they have left",
                clients, printable(name, 256));
  }
  removed = std::move(found->second);
  fixed_.erase(found);
  hide(removed);  // a client may have it that has not finished its handshake
  return clients;
}

std::shared_ptr<Export> ExportCatalog::find_fixed(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = fixed_.find(name);
  return found == fixed_.end() ? nullptr : found->second;
}

Result<std::shared_ptr<Export>> ExportCatalog::open(const std::string& name) {
  if (auto fixed = find_fixed(name)) return fixed;
  const bool plain = !name.empty() && name.size() <= NAME_MAX && name.front() != '.' &&
                     name.find('/') == std::string::npos;
  if (folder_.path.empty() || !plain) {
    return fail(ErrorKind::kNotFound, "no export \"{}\"", printable(name, 256));
  }
  auto opened = open_from_folder(name);
  if (!opened && opened.error().kind != ErrorKind::kNotFound) {
    log_.error(opened.error().to_string(), EntryFields().exported(name).error(opened.error()));
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
  for (const std::string& warning : opened.warnings) {
    log_.warn(warning, EntryFields().exported(name));
  }
  auto made = std::make_shared<Export>(name, folder_.description, std::move(opened.disk), "",
                                       std::vector<ExportedBitmap>(), service_for(name));

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

ExportService ExportCatalog::service_for(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (const auto found = services_.find(name); found != services_.end()) return found->second;
  ExportService service{.rule = rule_of(folder_.rules, name)};
  service.rate_limit =
      std::make_shared<RateLimit>(service.rule.bytes_per_second, service.rule.requests_per_second);
  if (services_.size() < limits::kListedExports) services_.emplace(name, service);
  return service;
}

std::vector<ExportCatalog::Counted> ExportCatalog::counted() {
  std::map<std::string, Counted> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, service] : services_) all[name] = {name, service.metrics, nullptr};
  }
  for (const auto& exported : in_use()) {
    const std::shared_ptr<const ExportMetrics> metrics(exported, &exported->metrics());
    all[exported->name()] = {exported->name(), metrics, exported};
  }
  std::vector<Counted> list;
  for (auto& [name, counted] : all) list.push_back(std::move(counted));
  return list;
}

std::vector<ExportDescription> ExportCatalog::list() const {
  std::vector<ExportDescription> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, fixed] : fixed_) all.push_back(fixed->describe());
  }
  if (folder_.path.empty()) return all;
  const auto is_fixed = [&](const std::string& name) {
    return std::ranges::binary_search(all, name, {}, &ExportDescription::name);
  };
  std::error_code error;
  std::error_code ignored;  // of single files: then they are not listed
  std::vector<std::string> names;
  for (fs::directory_iterator entry(folder_.path, error), end; entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.front() == '.' || name.size() > nbd::kMaxString || is_fixed(name)) continue;
    if (!entry->is_regular_file(ignored)) continue;
    // A link may lead to where no client is led.
    if (entry->is_symlink(ignored) && !open_file(name)) continue;
    if (names.size() == limits::kListedExports) break;
    names.push_back(name);
  }
  if (error) {
    log_.error(fmt::format("{}: cannot list: {}", folder_.path, error.message()),
               EntryFields().file(folder_.path).system_error(error.value()));
  }
  std::sort(names.begin(), names.end());
  for (std::string& name : names) {
    const bool needs_tls = rule_of(folder_.rules, name).needs_tls;
    all.push_back({.name = std::move(name), .description = folder_.description});
    all.back().needs_tls = needs_tls;
  }
  return all;
}

std::vector<std::shared_ptr<Export>> ExportCatalog::in_use() {
  std::vector<std::shared_ptr<Export>> exports;
  const std::lock_guard lock(mutex_);
  for (const auto& entry : hidden_) {
    if (auto hidden = entry.lock()) exports.push_back(std::move(hidden));
  }
  for (const auto& [name, fixed] : fixed_) exports.push_back(fixed);
  for (const FromFolder& entry : from_folder_) {
    if (auto opened = entry.opened.lock()) exports.push_back(std::move(opened));
  }
  return exports;
}

std::vector<std::shared_ptr<Export>> ExportCatalog::with_clients() {
  std::vector<std::shared_ptr<Export>> exports = in_use();
  const std::lock_guard lock(mutex_);
  // Held by the catalogue, by this list, and by whom else? Those that
  // are hidden or of a folder are held only by clients.
  std::erase_if(exports, [this](const std::shared_ptr<Export>& entry) {
    const auto found = fixed_.find(entry->name());
    const bool fixed = found != fixed_.end() && found->second == entry;
    return entry.use_count() <= (fixed ? 2 : 1);
  });
  return exports;
}

std::vector<ExportCatalog::Opened> ExportCatalog::opened() {
  std::vector<Opened> all;
  for (auto& exported : in_use()) all.push_back({.exported = std::move(exported)});
  {
    const std::lock_guard lock(mutex_);
    for (const auto& entry : hidden_) {
      const auto hidden = entry.lock();
      for (Opened& opened : all) opened.hidden = opened.hidden || opened.exported == hidden;
    }
  }
  std::ranges::stable_sort(
      all, {}, [](const Opened& opened) -> const std::string& { return opened.exported->name(); });
  return all;
}

void ExportCatalog::check_unchanged() {
  for (const auto& exported : in_use()) exported->check_unchanged(log_);
}

}  // namespace underlay
