// Where the bytes of a new image go: a file, standard output, memory.
#pragma once

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// Used by one thread. Bytes that nobody writes are zeros.
class Sink {
 public:
  Sink() = default;
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  virtual ~Sink() = default;

  // Can only take bytes behind those that it has (a pipe, an upload), or any?
  virtual bool is_sequential() const = 0;

  // The size (bytes) that finish() will be given, when it is known before the first write().
  virtual void set_size(uint64_t) {}

  // Writes all of `bytes` at `offset`, or fails. May block. Of a sequential sink: `offset` is not
  // before the end of what was written; what is left out becomes zeros.
  virtual Result<void> write(uint64_t offset, ByteSpan bytes) = 0;

  // Nothing more is written: the image has `size` bytes, at least as many as were written. May
  // block. An image that never gets here is none.
  virtual Result<void> finish(uint64_t size) = 0;
};

}  // namespace underlay
