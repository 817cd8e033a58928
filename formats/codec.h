// Decompression of one cluster.
#pragma once

#include <memory>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

enum class Codec : uint8_t {
  kDeflate,  // RFC 1951, no header (qcow2)
  kZlib,     // RFC 1950 (vmdk)
  kZstd,     // RFC 8878; may be several frames
};

// Fills all of `out` from the stream at the start of `in`, or fails with kMalformed: a stream that
// ends early is an error, one that has more to give, or bytes behind it, is not (qcow2 stores
// streams in whole sectors, and its readers stop when the cluster is full). The checksum of kZlib
// must be there and right. Thread-safe; reuses a context for each thread.
Result<void> decompress(Codec codec, ByteSpan in, MutableByteSpan out);

// Memory for a stream that is read from its file to be unpacked, uninitialised. A thread keeps what
// ordinary clusters need, so that it is there for the next one.
class StreamBuffer {
 public:
  // REQUIRES: `size` was checked against a limit; no other one lives in this thread.
  explicit StreamBuffer(size_t size);
  StreamBuffer(const StreamBuffer&) = delete;
  StreamBuffer& operator=(const StreamBuffer&) = delete;

  MutableByteSpan bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte[]> own_;  // of a stream longer than what the thread keeps
  MutableByteSpan bytes_;
};

}  // namespace underlay
