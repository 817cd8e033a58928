// Compression of one cluster.
#pragma once

#include <vector>

#include "formats/codec.h"

namespace underlay {

// Appends the stream of `in` to `out` and returns its length; 0, with nothing appended, when it
// would have `limit` bytes or more. The same bytes give the same stream. Thread-safe; reuses a
// context for each thread.
//
// kDeflate refers back no further than 4 KiB: readers of qcow2 may keep no larger window.
// kLimit when there is no memory.
Result<size_t> compress(Codec codec, ByteSpan in, size_t limit, std::vector<std::byte>& out);

}  // namespace underlay
