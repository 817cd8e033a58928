// A regular file or a block device as a Source.
#pragma once

#include <memory>
#include <string>

#include "io/image_lock.h"
#include "io/source.h"
#include "io/unique_fd.h"

namespace underlay {

// Opens `path` read-only. Never hangs on a FIFO. Fails for what is neither a regular file nor a
// block device, and under kNoWriter for what is being written (image_lock.h). The operator named this
// path: no confinement (confined_open.h has that).
Result<std::shared_ptr<const Source>> open_file_source(
    const std::string& path, FileSharing sharing = FileSharing::kNoWriter);

// The same of an open descriptor, which the source owns from then on. `name` is for messages.
Result<std::shared_ptr<const Source>> file_source_of(UniqueFd fd, std::string name,
                                                     FileSharing sharing);

}  // namespace underlay
