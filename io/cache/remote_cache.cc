#include "io/cache/remote_cache.h"

#include <fnmatch.h>

#include <algorithm>

namespace underlay {

RemoteCache::RemoteCache(const Config& config, std::unique_ptr<DiskCache> disk)
    : immutable_(config.immutable),
      disk_(std::move(disk)),
      background_(*disk_),
      prefetcher_(config.prefetch, *disk_) {}

Result<std::unique_ptr<RemoteCache>> RemoteCache::open(const Config& config, Log& log) {
  auto disk = TRY(DiskCache::open(config.disk, log));
  return std::unique_ptr<RemoteCache>(new RemoteCache(config, std::move(disk)));
}

std::optional<std::string> RemoteCache::content_id_of(const Source& source) const {
  if (auto id = source.content_id()) return id;
  const auto matches = [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), source.name().c_str(), 0) == 0;
  };
  if (std::ranges::any_of(immutable_, matches)) return "immutable " + source.name();
  return std::nullopt;
}

std::shared_ptr<const Source> RemoteCache::wrap(std::shared_ptr<const Source> source) {
  if (source->name().find("://") == std::string::npos) return source;
  const auto id = content_id_of(*source);
  if (!id || id->size() > kMaxContentId) {
    disk_->log().warn(fmt::format(
        "{}: is not cached: {}", printable(source->name()),
        id ? "its name is too long"
           : "nothing tells whether its content changes; --cache-immutable PATTERN says that it "
             "does not"));
    return source;
  }
  const uint64_t size = source->size();
  const CachedSource::Shared shared{.cache = *disk_, .flights = flights_, .ahead = background_};
  const CacheObject object = disk_->object({.id = *id, .size = size});
  auto record = prefetcher_.new_record(object);
  auto cached = std::make_shared<const CachedSource>(std::move(source), object, shared, record);
  prefetcher_.add(cached, std::move(record));
  return cached;
}

void RemoteCache::start() {
  background_.start();
  prefetcher_.start();
}

}  // namespace underlay
