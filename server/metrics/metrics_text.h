// All that is counted, in Prometheus' text format (version 0.0.4).
#pragma once

#include <string>

#include "formats/block_cache.h"
#include "server/export.h"
#include "server/metrics/server_metrics.h"

namespace underlay {

// Any thread.
std::string metrics_text(ExportCatalog& catalog, const Caches& caches,
                         const ServerMetrics& metrics);

}  // namespace underlay
