// Requests of the transmission phase (doc/proto.md, "Transmission phase"). Pure.
#pragma once

#include <chrono>
#include <cstdint>

#include "io/bytes.h"
#include "server/handshake.h"
#include "server/nbd_protocol.h"
#include "server/wire_buffer.h"

namespace underlay {

struct Request {
  nbd::Command command{};
  uint16_t flags = 0;
  uint64_t cookie = 0;  // opaque: echoed
  uint64_t offset = 0;
  uint64_t length = 0;
  // Not on the wire.
  uint8_t tries = 0;  // that failed (HeldRequests)
  std::chrono::steady_clock::time_point received{};
};

// Bytes of a request's header.
inline size_t request_bytes(const Negotiated& negotiated) {
  return negotiated.extended ? nbd::kExtendedRequestBytes : nbd::kRequestBytes;
}

// Does a request begin here, as far as `bytes` go? If not, the stream is out of step, and the
// connection ends.
bool starts_request(ByteSpan bytes, const Negotiated& negotiated);

// REQUIRES: starts_request(), header.size() == request_bytes(negotiated).
Request parse_request(ByteSpan header, const Negotiated& negotiated);

// The header that parse_request() makes this of. REQUIRES: it was parsed so.
void put_request(WireBuffer& out, const Request& request, const Negotiated& negotiated);

// How many bytes of payload follow the header.
uint64_t payload_bytes(const Request& request, const Negotiated& negotiated);

// The boundary: whatever passes here is within the export, allowed and of bounded length. Called
// before anything is allocated. Not for kDisconnect, which has no reply.
nbd::WireError validate_request(const Request& request, const Negotiated& negotiated,
                                uint64_t export_size);

}  // namespace underlay
