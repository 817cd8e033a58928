#include "server/request.h"

#include <algorithm>
#include <array>
#include <cassert>

namespace underlay {

using nbd::Command;
using nbd::WireError;

bool starts_request(ByteSpan bytes, const Negotiated& negotiated) {
  std::array<std::byte, sizeof(uint32_t)> magic;
  store_be<uint32_t>(magic, 0,
                     negotiated.extended ? nbd::kExtendedRequestMagic : nbd::kRequestMagic);
  const size_t known = std::min(bytes.size(), magic.size());
  return std::equal(magic.begin(), magic.begin() + static_cast<std::ptrdiff_t>(known),
                    bytes.begin());
}

Request parse_request(ByteSpan header, const Negotiated& negotiated) {
  assert(header.size() == request_bytes(negotiated));
  ByteReader reader(header);
  reader.skip(sizeof(uint32_t));  // the magic
  Request request;
  request.flags = reader.be<uint16_t>();
  request.command = static_cast<Command>(reader.be<uint16_t>());
  request.cookie = reader.be<uint64_t>();
  request.offset = reader.be<uint64_t>();
  request.length = negotiated.extended ? reader.be<uint64_t>() : reader.be<uint32_t>();
  return request;
}

void put_request(WireBuffer& out, const Request& request, const Negotiated& negotiated) {
  out.put<uint32_t>(negotiated.extended ? nbd::kExtendedRequestMagic : nbd::kRequestMagic);
  out.put<uint16_t>(request.flags);
  out.put<uint16_t>(static_cast<uint16_t>(request.command));
  out.put<uint64_t>(request.cookie);
  out.put<uint64_t>(request.offset);
  if (negotiated.extended) {
    out.put<uint64_t>(request.length);
  } else {
    out.put<uint32_t>(static_cast<uint32_t>(request.length));
  }
}

uint64_t payload_bytes(const Request& request, const Negotiated& negotiated) {
  const bool stated = negotiated.extended && (request.flags & nbd::kCommandPayloadLength) != 0;
  return request.command == Command::kWrite || stated ? request.length : 0;
}

namespace {

// FUA was advertised, so it is accepted everywhere; it asks nothing of a read.
uint16_t allowed_flags(Command command, const Negotiated& negotiated) {
  uint16_t flags = nbd::kCommandFua;
  if (command == Command::kRead && negotiated.structured) flags |= nbd::kCommandDf;
  if (command == Command::kBlockStatus) flags |= nbd::kCommandReqOne;
  if (command == Command::kWriteZeroes) flags |= nbd::kCommandNoHole | nbd::kCommandFastZero;
  return flags;
}

}  // namespace

WireError validate_request(const Request& request, const Negotiated& negotiated,
                           uint64_t export_size) {
  const Command command = request.command;
  if (command == Command::kWrite) return WireError::kPerm;
  if ((request.flags & ~allowed_flags(command, negotiated)) != 0) return WireError::kInvalid;
  const bool within = range_within(request.offset, request.length, export_size);
  switch (command) {
    case Command::kRead:
      return within && request.length <= nbd::kMaxPayload ? WireError::kNone : WireError::kInvalid;
    case Command::kCache:
      return within ? WireError::kNone : WireError::kInvalid;
    case Command::kFlush:
      return WireError::kNone;
    case Command::kTrim:
    case Command::kWriteZeroes:
      return WireError::kPerm;
    case Command::kBlockStatus: {
      return within && negotiated.any_context() && request.length > 0 ? WireError::kNone
                                                                      : WireError::kInvalid;
    }
    default:
      return WireError::kInvalid;
  }
}

}  // namespace underlay
