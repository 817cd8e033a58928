// Exports: disks with names.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "formats/dirty_bitmap.h"
#include "formats/open_chain.h"
#include "io/confined_open.h"
#include "io/log.h"
#include "server/handshake.h"
#include "server/session_state.h"

namespace underlay {

// A dirty bitmap that clients may ask for.
struct ExportedBitmap {
  std::string name;
  std::shared_ptr<const DirtyBitmap> bitmap;
};

// A disk as clients see it. Thread-safe.
class Export {
 public:
  // `snapshot`: which of the image's contents it is, as the operator asked for it. `bitmaps`: of
  // the disk, which then begins where its image does; at most limits::kDirtyBitmaps.
  Export(std::string name, std::string description, std::shared_ptr<const Disk> disk,
         std::string_view snapshot = {}, std::vector<ExportedBitmap> bitmaps = {});

  ExportDescription describe() const;
  const std::string& name() const { return name_; }
  uint64_t size() const { return disk_->size(); }
  const Disk& disk() const { return *disk_; }
  const std::vector<ExportedBitmap>& dirty_bitmaps() const { return bitmaps_; }

  // Its size, and a number of its files, where it begins in them, the snapshot and the names of its
  // dirty bitmaps. The content of two exports is the same when this is, as long as no file has
  // changed.
  ExportContent content() const {
    return {.name = name_, .size = size(), .fingerprint = fingerprint_};
  }

  // True once a file of the image was found changed: reads then fail, since old and new content
  // must not be mixed.
  bool changed() const { return changed_.load(std::memory_order_relaxed); }
  // Looks, and logs what it finds, once. May block.
  void check_unchanged(Log& log);

 private:
  const std::string name_;
  const std::string description_;
  const std::shared_ptr<const Disk> disk_;
  const std::vector<ExportedBitmap> bitmaps_;
  const uint64_t fingerprint_;
  std::atomic<bool> changed_ = false;
  std::atomic<bool> replaced_ = false;  // it has been said
};

// All exports of a server: some fixed ones, and every image of a folder, opened when a client asks.
// Thread-safe; open() and list() may block.
class ExportCatalog {
 public:
  struct Folder {
    std::string path;         // "" = none
    std::string description;  // of each export
    OpenOptions open;         // of each image
  };
  // `files`, `caches` and `log` outlive the catalog and all exports.
  ExportCatalog(Folder folder, const NamedFiles& files, Caches& caches, Log& log);

  // REQUIRES: no export of that name yet; before any client is served.
  void add(std::shared_ptr<Export> fixed);

  // kNotFound when there is no such export, another error when it cannot be served (it has been
  // logged then). Clients of one export share it while one of them lives.
  Result<std::shared_ptr<Export>> open(const std::string& name);
  // In order of their names; at most limits::kListedExports.
  std::vector<ExportDescription> list() const;
  // Of every export in use.
  void check_unchanged();
  // The exports that clients have at this moment, maybe one that a client is just leaving.
  std::vector<std::shared_ptr<Export>> with_clients();

 private:
  struct FromFolder {
    std::string name;
    FileIdentity identity;
    std::weak_ptr<Export> opened;
  };
  Result<OpenedFile> open_file(const std::string& name) const;
  Result<std::shared_ptr<Export>> open_from_folder(const std::string& name);
  std::shared_ptr<Export> find_shared(const std::string& name, const FileIdentity& identity);
  std::vector<std::shared_ptr<Export>> in_use();

  const Folder folder_;
  const NamedFiles& files_;
  Caches& caches_;
  Log& log_;
  std::map<std::string, std::shared_ptr<Export>> fixed_;
  std::mutex mutex_;
  std::vector<FromFolder> from_folder_;  // under mutex_: all that are in use, some no longer
};

}  // namespace underlay
