// The source that a name of the operator's means, wherever it is.
#pragma once

#include <memory>
#include <string>

#include "io/image_lock.h"
#include "io/source.h"

namespace underlay {

class RemoteCache;

// `name`: a path of a file or block device (file_source.h), or of an object on a server
// (http/http_source.h) or an NBD export (nbd_source.h), to which `sharing` does not apply, and
// which are read through `cache`, unless it is null. Not confined. May block.
Result<std::shared_ptr<const Source>> open_source(const std::string& name, FileSharing sharing,
                                                  RemoteCache* cache = nullptr);

}  // namespace underlay
