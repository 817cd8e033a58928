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
#include "io/worker_pool.h"
#include "server/handshake.h"
#include "server/metrics/export_metrics.h"
#include "server/rules/export_rule.h"
#include "server/rules/rate_limit.h"
#include "server/session_state.h"

namespace underlay {

// A dirty bitmap that clients may ask for.
struct ExportedBitmap {
  std::string name;
  std::shared_ptr<const DirtyBitmap> bitmap;
};

// How an export is served.
struct ExportService {
  std::shared_ptr<ExportMetrics> metrics = std::make_shared<ExportMetrics>();
  ExportRule rule{};
  std::shared_ptr<RateLimit> rate_limit = std::make_shared<RateLimit>(0, 0);  // by the rule
};

// A disk as clients see it. Thread-safe.
class Export {
 public:
  // `snapshot`: which of the image's contents it is, as the operator asked for it. `bitmaps`: of
  // the disk, which then begins where its image does; at most limits::kDirtyBitmaps.
  Export(std::string name, std::string description, std::shared_ptr<const Disk> disk,
         std::string_view snapshot = {}, std::vector<ExportedBitmap> bitmaps = {},
         ExportService service = {});

  ExportDescription describe() const;
  const std::string& name() const { return name_; }
  uint64_t size() const { return disk_->size(); }
  const Disk& disk() const { return *disk_; }
  // Of workers that read for a client.
  Urgency demand() const { return far_ ? Urgency::kFar : Urgency::kDemand; }
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
  const ExportRule& rule() const { return service_.rule; }
  // What the clients may have together, by the rule.
  RateLimit& rate_limit() const { return *service_.rate_limit; }
  ExportMetrics& metrics() const { return *service_.metrics; }
  // Those of this very export, in transmission: its metrics are of all that had its name.
  unsigned clients() const { return clients_; }
  void client_came() { ++clients_; }
  void client_left() { --clients_; }
  // What has become of requests whose reads failed.
  ReadFaults& faults() const { return service_.metrics->faults; }

  // Looks, and logs what it finds, once. May block.
  void check_unchanged(Log& log);

 private:
  const std::string name_;
  const std::string description_;
  const std::shared_ptr<const Disk> disk_;
  const bool far_;
  const std::vector<ExportedBitmap> bitmaps_;
  const uint64_t fingerprint_;
  const ExportService service_;
  std::atomic<unsigned> clients_ = 0;
  std::atomic<bool> changed_ = false;
  std::atomic<bool> replaced_ = false;  // it has been said
};

// All exports of a server: fixed ones, which an operator adds and removes, and every image of a
// folder, opened when a client asks.
// Thread-safe; open() and list() may block.
class ExportCatalog {
 public:
  struct Folder {
    std::string path;                 // "" = none
    std::string description;          // of each export
    OpenOptions open;                 // of each image
    std::vector<ExportRule> rules{};  // of these and of the fixed ones
  };
  // `files`, `caches` and `log` outlive the catalog and all exports.
  ExportCatalog(Folder folder, const NamedFiles& files, Caches& caches, Log& log);

  // How the export of that name is to be served.
  ExportService service_for(const std::string& name);
  // Offers it to clients to come. kUsage when another fixed one has its name.
  Result<void> add(std::shared_ptr<Export> fixed);
  // The same in place of the one that has its name, if any, which is hidden then.
  void replace(std::shared_ptr<Export> fixed);
  // What becomes of an export that clients use, whom nobody takes it away from: it stays, or is
  // hidden, which is to say that it is offered to no other client and closed once they have left.
  enum class WhenUsed : uint8_t { kStay, kHide };
  // Offers the fixed export of that name no longer, and says how many clients still have it.
  // kNotFound when there is none, kUsage when it stays.
  Result<unsigned> remove(const std::string& name, WhenUsed when_used);
  // Null when there is none.
  std::shared_ptr<Export> find_fixed(const std::string& name) const;

  // kNotFound when there is no such export, another error when it cannot be served (it has been
  // logged then). Clients of one export share it while one of them lives.
  Result<std::shared_ptr<Export>> open(const std::string& name);
  // In order of their names; at most limits::kListedExports.
  std::vector<ExportDescription> list() const;
  // Of every export in use.
  void check_unchanged();
  // What was counted of every export that was ever open, in order of their names.
  struct Counted {
    std::string name;
    std::shared_ptr<const ExportMetrics> metrics;
    std::shared_ptr<const Export> exported;  // null: closed
  };
  std::vector<Counted> counted();
  // Every export that is open, in order of their names.
  struct Opened {
    std::shared_ptr<const Export> exported;
    bool hidden = false;
  };
  std::vector<Opened> opened();
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
  void hide(const std::shared_ptr<Export>& fixed);
  std::vector<std::shared_ptr<Export>> in_use();

  const Folder folder_;
  const NamedFiles& files_;
  Caches& caches_;
  Log& log_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Export>> fixed_;  // under mutex_
  std::vector<std::weak_ptr<Export>> hidden_;             // under mutex_: some no longer open
  std::vector<FromFolder> from_folder_;  // under mutex_: all that are in use, some no longer
  // Under mutex_: of every name that was ever served, at most limits::kListedExports.
  std::map<std::string, ExportService> services_;
};

}  // namespace underlay
