// Finds exports for a handshake, on a worker: opening an image may block.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/ring.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "server/export.h"

namespace underlay {

class ExportLookupOwner {
 public:
  virtual ~ExportLookupOwner() = default;
  virtual void lookup_done() = 0;
};

// One look-up at a time. Belongs to the ring thread, which must let a look-up end before it
// destroys this.
class ExportLookup {
 public:
  // All outlive this.
  ExportLookup(Ring& ring, WorkerPool& workers, ExportCatalog& catalog, ExportLookupOwner& owner)
      : ring_(ring), workers_(workers), catalog_(catalog), owner_(owner) {}

  // Each calls owner.lookup_done() once. REQUIRES: !running().
  void find(const std::string& name);
  void list();

  bool running() const { return running_; }
  // After find(): the export, kNotFound, or why it cannot be served.
  const Result<std::shared_ptr<Export>>& found() const { return found_; }
  // After list(), once.
  std::vector<ExportDescription> take_listed() { return std::exchange(listed_, {}); }

 private:
  void start();
  void work();
  void done();

  Ring& ring_;
  WorkerPool& workers_;
  ExportCatalog& catalog_;
  ExportLookupOwner& owner_;
  bool running_ = false;
  bool list_all_ = false;
  std::string name_;
  Result<std::shared_ptr<Export>> found_ = fail(ErrorKind::kNotFound, "not looked up");
  std::vector<ExportDescription> listed_;
  MethodTask<&ExportLookup::work> work_task_{*this};
  MethodTask<&ExportLookup::done> done_task_{*this};
};

}  // namespace underlay
