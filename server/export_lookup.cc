#include "server/export_lookup.h"

#include <cassert>

namespace underlay {

void ExportLookup::find(const std::string& name) {
  name_ = name;
  list_all_ = false;
  start();
}

void ExportLookup::list() {
  list_all_ = true;
  start();
}

void ExportLookup::start() {
  assert(!running_);
  running_ = true;
  // A list of a folder takes its time, for whoever asks.
  workers_.submit(work_task_, list_all_ ? Urgency::kLong : Urgency::kArrival);
}

void ExportLookup::work() {
  if (list_all_) {
    listed_ = catalog_.list();
  } else {
    found_ = without_exceptions([&] { return catalog_.open(name_); });
  }
  ring_.post(done_task_);
}

void ExportLookup::done() {
  running_ = false;
  owner_.lookup_done();
}

}  // namespace underlay
