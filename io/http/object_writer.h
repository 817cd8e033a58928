// A new object on a server, written from its first byte to its last.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
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

  // How many bytes will be appended, when that is known first: some servers take nothing else
  // (RFC 9110, 15.5.12). Before the first append().
  virtual void set_size(uint64_t bytes) = 0;

  // Behind what was appended before. Blocks until the bytes are on their way, or copied.
  virtual Result<void> append(ByteSpan bytes) = 0;

  // Blocks until the server has all of it. Nothing may be appended any more.
  virtual Result<void> finish() = 0;

  // After append() or finish() has failed: how long to wait before another writer sends all of it
  // again, when `tries` have failed. nullopt: that would not help, or this one has tried again.
  virtual std::optional<std::chrono::milliseconds> retry_after(unsigned tries) const = 0;
};

struct WriteSettings {
  HttpLimits limits;
  // Bytes that there will be at most: the parts that a store gets are as large as that takes.
  uint64_t expected = 0;
  // Asked now and then while others are waited for: true ends it, with an error.
  std::function<bool()> interrupted = [] { return false; };
};

// `name`: http:// or https://, by one PUT, of unknown length (RFC 9112, 7.1) unless that is set; or
// s3://, by PUT or a multipart upload, whose parts are tried again. Blocks.
Result<std::unique_ptr<ObjectWriter>> create_object(const std::string& name,
                                                    WriteSettings settings);

// Fills all of `out` with an object's bytes from `offset` on, any number of times.
using ReadBytes = std::function<Result<void>(uint64_t offset, MutableByteSpan out)>;

// Writes the object `name` (as of create_object()) of `size` bytes that `read` gives. What a server
// cannot take now is sent again from the start, settings.limits.tries times in all. EINTR when it
// is interrupted. Blocks.
Result<void> send_object(const std::string& name, uint64_t size, const ReadBytes& read,
                         const WriteSettings& settings);

}  // namespace underlay
