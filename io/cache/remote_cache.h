// What a program has for images on servers: the cache in a local folder, the threads that
// fetch ahead, and what is fetched before anybody asks for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/cache/background_fetches.h"
#include "io/cache/cached_source.h"
#include "io/cache/disk_cache.h"
#include "io/cache/flights.h"
#include "io/cache/prefetcher.h"

namespace underlay {

// Thread-safe, but for start(). Outlives the sources that it makes.
class RemoteCache {
 public:
  struct Config {
    DiskCache::Config disk;
    Prefetcher::Config prefetch{};
    // Lasting names of sources (with *, ? and []), whose content the operator says never changes.
    std::vector<std::string> immutable;
  };
  // As DiskCache::open(). `log` outlives it.
  static Result<std::unique_ptr<RemoteCache>> open(const Config& config, Log& log);

  // `source`, of another machine, read through the cache when its content is known to stay the
  // same: by its content_id(), or by the operator's word, which binds the lasting_name() and the
  // size. Else as it is, and the log says so. May block.
  std::shared_ptr<const Source> wrap(std::shared_ptr<const Source> source);

  // Starts the threads, once the process may have any. Until then nothing is fetched ahead.
  void start();

  // Fetches no more ahead, and keeps what is to be remembered. False when a request is still under
  // way after `limit`: the destructor would wait for it. Thread-safe.
  bool end(std::chrono::milliseconds limit);

  DiskCache& disk() { return *disk_; }

 private:
  RemoteCache(const Config& config, std::unique_ptr<DiskCache> disk);
  Result<std::string> content_id_of(const Source& source) const;

  const std::vector<std::string> immutable_;
  const std::unique_ptr<DiskCache> disk_;
  Flights flights_;
  BackgroundFetches background_;
  Prefetcher prefetcher_;
};

}  // namespace underlay
