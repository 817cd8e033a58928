// A regular file or a block device as a Source.
#pragma once

#include <sys/stat.h>

#include <memory>
#include <string>

#include "io/image_lock.h"
#include "io/source.h"
#include "io/unique_fd.h"

namespace underlay {

// Of a file, or of a block device however many nodes it has: what the identity() of its source is.
FileIdentity identity_of(const struct stat& status);

// Opens `path` read-only. Never hangs on a FIFO. Fails for what is neither a regular file nor a
// block device, and under kNoWriter for what is being written (image_lock.h). The operator named this
// path: no confinement (confined_open.h has that).
Result<std::shared_ptr<const Source>> open_file_source(
    const std::string& path, FileSharing sharing = FileSharing::kNoWriter);

// The same of an open descriptor, which the source owns from then on. `name` is for messages.
Result<std::shared_ptr<const Source>> file_source_of(UniqueFd fd, std::string name,
                                                     FileSharing sharing);

}  // namespace underlay
