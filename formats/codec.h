// Decompression of one cluster.
#pragma once

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
// streams in whole sectors, and its readers stop when the cluster is full). Thread-safe; reuses a
// context for each thread.
Result<void> decompress(Codec codec, ByteSpan in, MutableByteSpan out);

}  // namespace underlay
