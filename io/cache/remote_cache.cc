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

// Errors say why it is not to be cached.
Result<std::string> RemoteCache::content_id_of(const Source& source) const {
  auto id = source.content_id();
  const std::string name = source.lasting_name();
  const auto matches = [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
  };
  if (!id && name.empty()) {
    return fail(
        ErrorKind::kUnsupported,
        "its URL has a query that is neither a version nor a signature, and may choose what "
        "is read");
  }
  if (!id && std::ranges::any_of(immutable_, matches)) id = "immutable " + name;
  if (!id) {
    return fail(ErrorKind::kUnsupported,
                "nothing tells whether its content changes; --cache-immutable PATTERN says that it "
                "does not");
  }
  if (id->size() > kMaxContentId) return fail(ErrorKind::kLimit, "its name is too long");
  return *std::move(id);
}

std::shared_ptr<const Source> RemoteCache::wrap(std::shared_ptr<const Source> source) {
  const auto id = content_id_of(*source);
  if (!id) {
    disk_->log().warn(
        fmt::format("{}: is not cached: {}", printable(source->name()), id.error().message));
    return source;
  }
  const uint64_t size = source->size();
  const CachedSource::Shared shared{.cache = *disk_, .flights = flights_, .ahead = background_};
  const CacheObject object = disk_->object({.id = *id, .size = size});
  auto record = prefetcher_.new_record();
  auto cached = std::make_shared<const CachedSource>(std::move(source), object, shared, record);
  prefetcher_.add(cached, std::move(record));
  return cached;
}

void RemoteCache::start() {
  background_.start();
  prefetcher_.start();
}

bool RemoteCache::end(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  const bool background = background_.end(until);
  return prefetcher_.end(until) && background;
}

}  // namespace underlay
