// What a session in the transmission phase is, beside its socket: enough for another process to go
// on with it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/handshake.h"
#include "server/request.h"

namespace underlay {

// Which content a client sees. Two processes that open the same files in the same way agree on it.
struct ExportContent {
  std::string name;
  uint64_t size = 0;         // bytes
  uint64_t fingerprint = 0;  // of the files, the offset and the snapshot: Export::fingerprint()
  bool operator==(const ExportContent&) const = default;
};

struct SessionState {
  ExportContent content;
  Negotiated negotiated;
  // What the client has asked and was not answered, in its bytes: requests that are held, then what
  // was received and not consumed, whole requests, a part of one, or a payload. At most
  // limits::kReceiveBuffer.
  std::vector<std::byte> input;
  // The request whose payload is being dropped; only when payload_left > 0.
  uint64_t payload_left = 0;  // bytes of it that are still to come
  Request payload_request;
  nbd::WireError payload_error = nbd::WireError::kNone;  // what it is answered with then
};

}  // namespace underlay
