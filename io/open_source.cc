#include "io/open_source.h"

#include "io/file_source.h"
#include "io/http/http_source.h"
#include "io/http/remote_name.h"

namespace underlay {

Result<std::shared_ptr<const Source>> open_source(const std::string& name, FileSharing sharing) {
  return is_remote_name(name) ? open_http_source(name) : open_file_source(name, sharing);
}

}  // namespace underlay
