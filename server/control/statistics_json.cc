#include "server/control/statistics_json.h"

#include "io/cache/remote_cache.h"

namespace underlay {
namespace {

using Json = nlohmann::ordered_json;

double seconds(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }

// How many requests took at most so long, as Prometheus' histograms count; "seconds" is null for
// all of them.
Json latencies_json(const RequestCounts& counts) {
  Json buckets = Json::array();
  uint64_t sum = 0;
  for (size_t i = 0; i < kLatencyBuckets; ++i) {
    sum += counts.latencies[i];
    Json bound;
    if (i < kLatencyBounds.size()) bound = std::chrono::duration<double>(kLatencyBounds[i]).count();
    buckets.push_back({{"seconds", std::move(bound)}, {"requests", sum}});
  }
  return buckets;
}

Json export_json(const ExportCatalog::Counted& counted) {
  const ExportMetrics& metrics = *counted.metrics;
  const RequestCounts counts = metrics.requests.counts();
  const ReadFaults::Counts faults = metrics.faults.counts();
  Json json{{"name", counted.name},
            {"clients", metrics.clients.load()},
            {"reads", counts.reads},
            {"read_bytes", counts.read_bytes},
            {"other_requests", counts.others},
            {"errors", counts.errors},
            {"in_flight", metrics.requests.in_flight()},
            {"held", faults.held},
            {"read_retries", faults.retried},
            {"failed_reads", faults.failed},
            {"seconds", seconds(counts.latency_ns)},
            {"latencies", latencies_json(counts)}};
  if (!counted.exported) return json;
  Json layers = Json::array();
  const Disk& disk = counted.exported->disk();
  for (size_t layer = 0; layer < disk.layers().size(); ++layer) {
    layers.push_back({{"path", disk.layers()[layer].path}, {"read_bytes", disk.bytes_read(layer)}});
  }
  json["layers"] = std::move(layers);
  return json;
}

Json cache_json(const BlockCache& cache) {
  const BlockCache::Counts counts = cache.counts();
  return {{"hits", counts.hits}, {"loads", counts.loads}, {"bytes", counts.used}};
}

Json counts_json(const DiskCacheCounts& counts) {
  return {{"hits", counts.hits},
          {"hit_bytes", counts.hit_bytes},
          {"fetches", counts.fetches},
          {"fetched_bytes", counts.fetched_bytes},
          {"stored_bytes", counts.stored_bytes},
          {"damaged_blocks", counts.damaged_blocks},
          {"failures", counts.failures}};
}

}  // namespace

Result<Json> remote_cache_json(DiskCache& cache) {
  const CacheContents contents = TRY(cache.directory().contents());
  Json images = Json::array();
  for (const CachedObject& object : contents.objects) {
    if (images.size() == kListedImages) break;
    images.push_back({{"content", object.facts.id},
                      {"size", object.facts.size},
                      {"bytes", object.bytes},
                      {"last_use", object.last_use}});
  }
  return Json{{"directory", cache.directory().path()},
              {"limit", cache.directory().limit()},
              {"bytes", contents.bytes},
              {"counts", counts_json(cache.counts())},
              {"images", std::move(images)}};
}

Json statistics_json(ExportCatalog& catalog, const Caches& caches, const ServerMetrics& metrics) {
  Json exports = Json::array();
  for (const auto& counted : catalog.counted()) exports.push_back(export_json(counted));
  Json json{{"clients", metrics.clients.load()},
            {"connections", metrics.accepted.load()},
            {"refused_connections", metrics.refused.load()},
            {"tables", cache_json(caches.tables)},
            {"clusters", cache_json(caches.clusters)},
            {"unpacked_clusters", caches.unpacking.clusters.load()},
            {"unpacked_bytes", caches.unpacking.bytes.load()},
            {"unpacking_seconds", seconds(caches.unpacking.nanoseconds)},
            {"exports", std::move(exports)}};
  if (caches.remote) json["remote"] = counts_json(caches.remote->disk().counts());
  return json;
}

}  // namespace underlay
