// All that is counted, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "formats/block_cache.h"
#include "io/cache/disk_cache.h"
#include "server/export.h"
#include "server/metrics/server_metrics.h"

namespace underlay {

// Any thread.
nlohmann::ordered_json statistics_json(ExportCatalog& catalog, const Caches& caches,
                                       const ServerMetrics& metrics);

// What the cache of remote images has, and what it did. The images that were used last come first,
// at most kListedImages of them. May block.
inline constexpr size_t kListedImages = 1000;
Result<nlohmann::ordered_json> remote_cache_json(DiskCache& cache);

}  // namespace underlay
