// Headers of replies, written into memory that the caller has (doc/proto.md, "Simple reply
// message", "Structured reply chunk message", "Extended reply chunk message"). Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "io/bytes.h"
#include "server/request.h"

namespace underlay {

struct StatusExtent {
  uint64_t length = 0;  // bytes
  uint64_t flags = 0;   // what the context says of them
};

// Writes the parts of the replies to one request, in the form that was negotiated. Each put_ method
// writes to the front of `out` and returns the number of bytes written.
// REQUIRES of all: out.size() >= kMaxHeader (+ the message for put_error).
class ReplyWriter {
 public:
  ReplyWriter(const Negotiated& negotiated, const Request& request)
      : negotiated_(negotiated), request_(request) {}

  // No reply header is longer.
  static constexpr size_t kMaxHeader = 64;
  static constexpr size_t kMaxError = 512;  // header and message of put_error()

  // Success without payload.
  size_t put_success(MutableByteSpan out) const;
  // The request failed. The message is cut to fit into kMaxError.
  size_t put_error(MutableByteSpan out, nbd::WireError error, std::string_view message) const;
  // The header of a read's data: `length` bytes of payload follow at once. Without structured
  // replies, it is the whole request's. `last`: no further chunk.
  size_t put_data_header(MutableByteSpan out, uint64_t offset, uint64_t length, bool last) const;
  // A chunk that says that a range of a read is zeros. REQUIRES: structured replies.
  size_t put_hole(MutableByteSpan out, uint64_t offset, uint64_t length, bool last) const;
  // A block status chunk. REQUIRES: room for the header and status_extent_bytes() for each extent.
  size_t put_status(MutableByteSpan out, uint32_t context, const std::vector<StatusExtent>& extents,
                    bool last) const;
  size_t status_extent_bytes() const { return negotiated_.extended ? 16 : 8; }

  bool structured() const { return negotiated_.structured; }

 private:
  size_t put_simple(MutableByteSpan out, nbd::WireError error) const;
  size_t put_chunk(MutableByteSpan out, nbd::Chunk type, uint64_t payload, bool last) const;

  const Negotiated& negotiated_;
  const Request& request_;
};

}  // namespace underlay
