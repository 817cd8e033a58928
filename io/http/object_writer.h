// A new object on a server, written from its first byte to its last.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "io/bytes.h"
#include "io/error.h"
#include "io/http/http_limits.h"

namespace underlay {

// Belongs to one thread. An object that is not finished is none: what is there already under its
// name stays as it is. Errors name the object.
class ObjectWriter {
 public:
  ObjectWriter() = default;
  ObjectWriter(const ObjectWriter&) = delete;
  ObjectWriter& operator=(const ObjectWriter&) = delete;
  virtual ~ObjectWriter() = default;

  // Behind what was appended before. Blocks until the bytes are on their way, or copied.
  virtual Result<void> append(ByteSpan bytes) = 0;

  // Blocks until the server has all of it. Nothing may be appended any more.
  virtual Result<void> finish() = 0;
};

struct WriteSettings {
  HttpLimits limits;
  // Bytes that there will be at most: the parts that a store gets are as large as that takes.
  uint64_t expected = 0;
  // Asked now and then while others are waited for: true ends it, with an error.
  std::function<bool()> interrupted = [] { return false; };
};

// `name`: http:// or https://, by one PUT of unknown length (RFC 9112, 7.1), which is not tried
// again; or s3://, by PUT or a multipart upload, whose parts are. Blocks.
Result<std::unique_ptr<ObjectWriter>> create_object(const std::string& name,
                                                    WriteSettings settings);

}  // namespace underlay
