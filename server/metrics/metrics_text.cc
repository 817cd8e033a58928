#include "server/metrics/metrics_text.h"

#include <fmt/format.h>

#include <iterator>
#include <string_view>

#include "io/cache/remote_cache.h"

namespace underlay {
namespace {

// A label's value: backslashes, quotes and line ends are escaped; what is no UTF-8 is as
// printable() shows it.
std::string quoted(std::string_view text) {
  std::string out;
  for (const char c : printable(text)) {
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out;
}

double seconds(uint64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }

class Text {
 public:
  // `type`: counter, gauge, histogram.
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    add("# HELP underlay_{} {}\n# TYPE underlay_{} {}\n", name, help, name, type);
  }
  template <class Value>
  void sample(std::string_view labels, Value value) {
    sample_of("", labels, value);
  }
  template <class Value>
  void sample_of(std::string_view suffix, std::string_view labels, Value value) {
    if (labels.empty()) return add("underlay_{}{} {}\n", name_, suffix, value);
    add("underlay_{}{}{{{}}} {}\n", name_, suffix, labels, value);
  }
  std::string take() { return std::move(text_); }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }

  std::string text_;
  std::string_view name_;
};

using List = std::vector<ExportCatalog::Counted>;

std::string label_of(const ExportCatalog::Counted& counted) {
  return fmt::format("export=\"{}\"", quoted(counted.name));
}

// A number for each export.
template <class Get>
void each_export(Text& text, const List& list, std::string_view name, std::string_view type,
                 std::string_view help, Get&& get) {
  text.family(name, type, help);
  for (const auto& counted : list) text.sample(label_of(counted), get(*counted.metrics));
}

void put_requests(Text& text, const List& list) {
  using Metrics = ExportMetrics;
  each_export(text, list, "export_reads_total", "counter", "Reads answered with data.",
              [](const Metrics& m) { return m.requests.counts().reads; });
  each_export(text, list, "export_read_bytes_total", "counter", "Bytes that clients have read.",
              [](const Metrics& m) { return m.requests.counts().read_bytes; });
  each_export(text, list, "export_other_requests_total", "counter",
              "Block status, prefetches and flushes.",
              [](const Metrics& m) { return m.requests.counts().others; });
  each_export(text, list, "export_errors_total", "counter", "Requests answered with an error.",
              [](const Metrics& m) { return m.requests.counts().errors; });
  each_export(text, list, "export_requests_in_flight", "gauge",
              "Requests that wait for a disk, a worker, or another try.",
              [](const Metrics& m) { return m.requests.in_flight(); });
  each_export(text, list, "export_clients", "gauge", "Connections that use the export.",
              [](const Metrics& m) { return m.clients.load(); });
  each_export(text, list, "export_held_requests", "gauge",
              "Requests whose read of the image failed, and is tried again.",
              [](const Metrics& m) { return m.faults.counts().held; });
  each_export(text, list, "export_read_retries_total", "counter",
              "Reads of the image that were tried again.",
              [](const Metrics& m) { return m.faults.counts().retried; });
  each_export(text, list, "export_failed_reads_total", "counter",
              "Requests that failed because the image could not be read.",
              [](const Metrics& m) { return m.faults.counts().failed; });
}

void put_latencies(Text& text, const List& list) {
  text.family("export_request_duration_seconds", "histogram",
              "From a request's arrival until its reply is on its way.");
  for (const auto& counted : list) {
    const RequestCounts counts = counted.metrics->requests.counts();
    const std::string label = label_of(counted);
    uint64_t sum = 0;
    for (size_t i = 0; i < kLatencyBuckets; ++i) {
      sum += counts.latencies[i];
      const std::string bound =
          i < kLatencyBounds.size()
              ? fmt::format("{}", std::chrono::duration<double>(kLatencyBounds[i]).count())
              : "+Inf";
      text.sample_of("_bucket", fmt::format("{},le=\"{}\"", label, bound), sum);
    }
    text.sample_of("_sum", label, seconds(counts.latency_ns));
    text.sample_of("_count", label, sum);
  }
}

void put_images(Text& text, const List& list) {
  text.family("export_changed", "gauge", "1 when a file of the image has changed: reads fail.");
  for (const auto& counted : list) {
    if (counted.exported) text.sample(label_of(counted), counted.exported->changed() ? 1 : 0);
  }
  text.family("layer_read_bytes_total", "counter",
              "Stored bytes of an image of a chain that were read; layer 0 is the top.");
  for (const auto& counted : list) {
    if (!counted.exported) continue;
    const Disk& disk = counted.exported->disk();
    for (size_t layer = 0; layer < disk.layers().size(); ++layer) {
      text.sample(fmt::format("{},layer=\"{}\",file=\"{}\"", label_of(counted), layer,
                              quoted(disk.layers()[layer].path)),
                  disk.bytes_read(layer));
    }
  }
}

void put_caches(Text& text, const Caches& caches) {
  const BlockCache::Counts tables = caches.tables.counts();
  const BlockCache::Counts clusters = caches.clusters.counts();
  const auto both = [&](std::string_view name, std::string_view type, std::string_view help,
                        uint64_t of_tables, uint64_t of_clusters) {
    text.family(name, type, help);
    text.sample("cache=\"tables\"", of_tables);
    text.sample("cache=\"clusters\"", of_clusters);
  };
  both("cache_hits_total", "counter", "Blocks that were in memory when they were asked for.",
       tables.hits, clusters.hits);
  both("cache_loads_total", "counter", "Blocks that had to be loaded.", tables.loads,
       clusters.loads);
  both("cache_bytes", "gauge", "Memory in use.", tables.used, clusters.used);
  text.family("unpacked_clusters_total", "counter", "Clusters that were unpacked.");
  text.sample("", caches.unpacking.clusters.load());
  text.family("unpacked_bytes_total", "counter", "Their bytes, once unpacked.");
  text.sample("", caches.unpacking.bytes.load());
  text.family("unpacking_seconds_total", "counter",
              "Time for reading and unpacking them, on all threads.");
  text.sample("", seconds(caches.unpacking.nanoseconds));
}

void put_remote_cache(Text& text, const Caches& caches) {
  if (!caches.remote) return;
  const DiskCacheCounts counts = caches.remote->disk().counts();
  const auto counter = [&](std::string_view name, std::string_view help, uint64_t value) {
    text.family(name, "counter", help);
    text.sample("", value);
  };
  counter("remote_cache_hits_total", "Reads of blocks that the cache on disk answered.",
          counts.hits);
  counter("remote_cache_hit_bytes_total", "Their bytes.", counts.hit_bytes);
  counter("remote_fetches_total", "Requests to servers for blocks of images.", counts.fetches);
  counter("remote_fetched_bytes_total", "Their bytes.", counts.fetched_bytes);
  counter("remote_cache_failures_total",
          "Damaged blocks, and failures of the folder of the cache on disk.",
          counts.damaged_blocks + counts.failures);
}

}  // namespace

std::string metrics_text(ExportCatalog& catalog, const Caches& caches,
                         const ServerMetrics& metrics) {
  Text text;
  text.family("clients", "gauge", "Connections.");
  text.sample("", metrics.clients.load());
  text.family("connections_total", "counter", "Connections that were accepted.");
  text.sample("", metrics.accepted.load());
  text.family("refused_connections_total", "counter", "Connections of peers that may not connect.");
  text.sample("", metrics.refused.load());
  const List list = catalog.counted();
  put_requests(text, list);
  put_latencies(text, list);
  put_images(text, list);
  put_caches(text, caches);
  put_remote_cache(text, caches);
  return text.take();
}

}  // namespace underlay
