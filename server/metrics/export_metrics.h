// All that is counted of one export. It outlives the export when that is closed and opened again.
#pragma once

#include <atomic>

#include "server/metrics/request_metrics.h"
#include "server/read_faults.h"

namespace underlay {

// Thread-safe.
struct ExportMetrics {
  RequestMetrics requests;
  ReadFaults faults;
  std::atomic<unsigned> clients = 0;  // in transmission, or about to be

  // One more client. False, and no more, when there are `most` already; 0 is no limit.
  bool enter(unsigned most) {
    unsigned now = clients.load();
    do {
      if (most != 0 && now >= most) return false;
    } while (!clients.compare_exchange_weak(now, now + 1));
    return true;
  }
  void leave() { --clients; }
};

}  // namespace underlay
