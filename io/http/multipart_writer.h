// An object that is put into an S3 store in parts, several of which are under way at a time (Amazon
// S3 User Guide, "Uploading and copying objects using multipart upload").
#pragma once

#include <memory>

#include "io/http/http_target.h"
#include "io/http/object_writer.h"

namespace underlay {

// Bytes in memory for one object: parts that are filled, and sent.
inline constexpr uint64_t kUploadMemory = 256 << 20;

Result<std::unique_ptr<ObjectWriter>> make_multipart_writer(HttpTarget target,
                                                            WriteSettings settings);

}  // namespace underlay
