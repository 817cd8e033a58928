// Where a converted image goes when it is to be an object on a server.
#pragma once

#include <memory>
#include <string>

#include "formats/disk.h"
#include "formats/writing/sink.h"

namespace underlay::img {

// In which order an image's bytes come (ImageWriter::is_sequential()).
enum class WriteOrder : uint8_t { kSequential, kAny };

// `url`: http://, https:// or s3:// (io/http/object_writer.h); must be no part of `source`.
// `expected`: bytes that the image has at most, about. kSequential: they are sent as they come.
// kAny: they are kept in a file without a name, in TMPDIR or /var/tmp, and sent in Sink::finish(),
// also again while a server cannot take them.
// The object is there in full, once finish() has succeeded, or as it was.
Result<std::unique_ptr<Sink>> open_upload(const std::string& url, const Disk& source,
                                          uint64_t expected, WriteOrder order);

}  // namespace underlay::img
