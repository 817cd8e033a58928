#include "io/open_source.h"

#include "io/cache/remote_cache.h"
#include "io/file_source.h"
#include "io/http/http_source.h"
#include "io/http/remote_name.h"
#include "io/nbd_source.h"

namespace underlay {

Result<std::shared_ptr<const Source>> open_source(const std::string& name, FileSharing sharing,
                                                  RemoteCache* cache) {
  const bool is_export = names_nbd_export(name);
  if (!is_export && !is_remote_name(name)) return open_file_source(name, sharing);
  const HttpKeeper keeper = cache == nullptr ? HttpKeeper::kSource : HttpKeeper::kCaller;
  auto source = TRY(is_export ? open_nbd_source(name) : open_http_source(name, keeper));
  return cache == nullptr ? source : cache->wrap(std::move(source));
}

}  // namespace underlay
