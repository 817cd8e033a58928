// All that is counted, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "formats/block_cache.h"
#include "server/export.h"
#include "server/metrics/server_metrics.h"

namespace underlay {

// Any thread.
nlohmann::ordered_json statistics_json(ExportCatalog& catalog, const Caches& caches,
                                       const ServerMetrics& metrics);

}  // namespace underlay
