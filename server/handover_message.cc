#include "server/handover_message.h"

#include <algorithm>

#include "server/limits.h"
#include "server/wire_buffer.h"

namespace underlay::handover {
namespace {

// The numbers on the wire are those of the alternatives of Message.
constexpr uint16_t kRefusedType = static_cast<uint16_t>(std::variant_size_v<Message> - 1);

constexpr uint8_t kStructured = 1 << 0;
constexpr uint8_t kExtended = 1 << 1;
constexpr uint8_t kAllocation = 1 << 2;
constexpr uint8_t kAllocationDepth = 1 << 3;
constexpr uint8_t kDirtyBitmaps = 1 << 4;  // which ones follows, in 4 bytes

// ---- Writing ----

void put_string(WireBuffer& out, std::string_view text) {
  out.put<uint16_t>(static_cast<uint16_t>(text.size()));
  out.put_text(text);
}

void put_content(WireBuffer& out, const ExportContent& content) {
  out.put<uint64_t>(content.size);
  out.put<uint64_t>(content.fingerprint);
  put_string(out, content.name);
}

void put_identity(WireBuffer& out, const FileIdentity& identity) {
  out.put<uint64_t>(identity.device);
  out.put<uint64_t>(identity.inode);
}

struct Writer {
  WireBuffer& out;

  void operator()(const Hello&) const {}
  void operator()(const ExportInUse& message) const { put_content(out, message.content); }
  void operator()(const ExportsEnd&) const {}
  void operator()(const Ready&) const {}
  void operator()(const Listener& message) const {
    out.put<uint8_t>(static_cast<uint8_t>(message.whom));
    out.put<uint8_t>(message.tcp ? 1 : 0);
    put_string(out, message.address);
    put_string(out, message.path);
    put_identity(out, message.identity);
  }
  void operator()(const Waiting&) const {}
  void operator()(const SessionState& state) const {
    put_content(out, state.content);
    const Negotiated& negotiated = state.negotiated;
    out.put<uint8_t>(static_cast<uint8_t>((negotiated.structured ? kStructured : 0) |
                                          (negotiated.extended ? kExtended : 0) |
                                          (negotiated.allocation ? kAllocation : 0) |
                                          (negotiated.allocation_depth ? kAllocationDepth : 0) |
                                          (negotiated.dirty_bitmaps != 0 ? kDirtyBitmaps : 0)));
    if (negotiated.dirty_bitmaps != 0) out.put<uint32_t>(negotiated.dirty_bitmaps);
    out.put<uint64_t>(state.payload_left);
    const Request& request = state.payload_request;
    out.put<uint16_t>(static_cast<uint16_t>(request.command));
    out.put<uint16_t>(request.flags);
    out.put<uint64_t>(request.cookie);
    out.put<uint64_t>(request.offset);
    out.put<uint64_t>(request.length);
    out.put<uint32_t>(static_cast<uint32_t>(state.payload_error));
    out.put<uint32_t>(static_cast<uint32_t>(state.input.size()));
    out.put_text(as_text(state.input));
  }
  void operator()(const Inventory& message) const {
    out.put<uint32_t>(message.listeners);
    out.put<uint32_t>(message.waiting);
    out.put<uint32_t>(message.sessions);
  }
  void operator()(const Taken& message) const { put_identity(out, message.pid_file); }
  void operator()(const Released&) const {}
  void operator()(const Refused& message) const {
    put_string(out, std::string_view(message.reason).substr(0, kMaxReason));
  }
};

// ---- Reading ----

// A string of at most `limit` bytes; sets `valid` to false when it is longer or has a NUL.
std::string read_string(ByteReader& reader, size_t limit, bool& valid) {
  const std::string text(as_text(reader.bytes(reader.be<uint16_t>())));
  valid = valid && text.size() <= limit && text.find('\0') == std::string::npos;
  return text;
}

bool read_bool(ByteReader& reader, bool& valid) {
  const auto value = reader.be<uint8_t>();
  valid = valid && value <= 1;
  return value == 1;
}

ExportContent read_content(ByteReader& reader, bool& valid) {
  ExportContent content;
  content.size = reader.be<uint64_t>();
  content.fingerprint = reader.be<uint64_t>();
  content.name = read_string(reader, nbd::kMaxString, valid);
  return content;
}

FileIdentity read_identity(ByteReader& reader) {
  FileIdentity identity;
  identity.device = reader.be<uint64_t>();
  identity.inode = reader.be<uint64_t>();
  return identity;
}

Listener read_listener(ByteReader& reader, bool& valid) {
  Listener listener;
  const auto whom = reader.be<uint8_t>();
  valid = valid && whom <= static_cast<uint8_t>(Listener::For::kSuccessors);
  listener.whom = static_cast<Listener::For>(whom);
  listener.tcp = read_bool(reader, valid);
  listener.address = read_string(reader, kMaxAddress, valid);
  listener.path = read_string(reader, kMaxAddress, valid);
  listener.identity = read_identity(reader);
  return listener;
}

Negotiated read_negotiated(ByteReader& reader, bool& valid) {
  const auto flags = reader.be<uint8_t>();
  Negotiated negotiated{.structured = (flags & kStructured) != 0,
                        .extended = (flags & kExtended) != 0,
                        .allocation = (flags & kAllocation) != 0,
                        .allocation_depth = (flags & kAllocationDepth) != 0};
  valid = valid && flags < (kDirtyBitmaps << 1) && (flags == 0 || negotiated.structured);
  if ((flags & kDirtyBitmaps) == 0) return negotiated;
  negotiated.dirty_bitmaps = reader.be<uint32_t>();
  valid = valid && negotiated.dirty_bitmaps != 0;
  return negotiated;
}

SessionState read_session(ByteReader& reader, bool& valid) {
  SessionState state;
  state.content = read_content(reader, valid);
  state.negotiated = read_negotiated(reader, valid);
  state.payload_left = reader.be<uint64_t>();
  Request& request = state.payload_request;
  request.command = static_cast<nbd::Command>(reader.be<uint16_t>());
  request.flags = reader.be<uint16_t>();
  request.cookie = reader.be<uint64_t>();
  request.offset = reader.be<uint64_t>();
  request.length = reader.be<uint64_t>();
  state.payload_error = static_cast<nbd::WireError>(reader.be<uint32_t>());
  const bool dropping = state.payload_left > 0;
  const bool error = state.payload_error == nbd::WireError::kPerm ||
                     state.payload_error == nbd::WireError::kIo ||
                     state.payload_error == nbd::WireError::kInvalid;
  valid = valid &&
          (!dropping || (error && state.payload_left <= payload_bytes(request, state.negotiated)));
  const auto length = reader.be<uint32_t>();
  valid = valid && length <= limits::kReceiveBuffer;
  const ByteSpan input = reader.bytes(length);
  state.input.assign(input.begin(), input.end());
  return state;
}

Inventory read_inventory(ByteReader& reader) {
  Inventory inventory;
  inventory.listeners = reader.be<uint32_t>();
  inventory.waiting = reader.be<uint32_t>();
  inventory.sessions = reader.be<uint32_t>();
  return inventory;
}

Message read_body(size_t type, ByteReader& reader, bool& valid) {
  static const std::array<Message (*)(ByteReader&, bool&), std::variant_size_v<Message>> kReaders{
      [](ByteReader&, bool&) -> Message { return Hello{}; },
      [](ByteReader& from, bool& ok) -> Message { return ExportInUse{read_content(from, ok)}; },
      [](ByteReader&, bool&) -> Message { return ExportsEnd{}; },
      [](ByteReader&, bool&) -> Message { return Ready{}; },
      [](ByteReader& from, bool& ok) -> Message { return read_listener(from, ok); },
      [](ByteReader&, bool&) -> Message { return Waiting{}; },
      [](ByteReader& from, bool& ok) -> Message { return read_session(from, ok); },
      [](ByteReader& from, bool&) -> Message { return read_inventory(from); },
      [](ByteReader& from, bool&) -> Message { return Taken{read_identity(from)}; },
      [](ByteReader&, bool&) -> Message { return Released{}; },
      [](ByteReader& from, bool& ok) -> Message {
        return Refused{read_string(from, kMaxReason, ok)};
      },
  };
  return kReaders[type](reader, valid);
}

}  // namespace

std::vector<std::byte> encode(const Message& message) {
  WireBuffer out;
  out.put<uint32_t>(kMagic);
  out.put<uint16_t>(kVersion);
  out.put<uint16_t>(static_cast<uint16_t>(message.index()));
  std::visit(Writer{out}, message);
  const ByteSpan bytes = out.bytes();
  return {bytes.begin(), bytes.end()};
}

Result<Message> decode(ByteSpan packet) {
  ByteReader reader(packet);
  const auto magic = reader.be<uint32_t>();
  const auto version = reader.be<uint16_t>();
  const auto type = reader.be<uint16_t>();
  if (!reader.ok() || magic != kMagic || packet.size() > kMaxMessage) {
    return fail(ErrorKind::kMalformed, "{} bytes that are no message of a hand-over",
                packet.size());
  }
  if (version != kVersion && type != kRefusedType) {
    return fail(ErrorKind::kUnsupported,
                "version {} of the hand-over is not known, only version {}: restart instead",
                version, kVersion);
  }
  if (type > kRefusedType) {
    return fail(ErrorKind::kMalformed, "type {} of a hand-over's message is not known", type);
  }
  bool valid = true;
  Message message = read_body(type, reader, valid);
  if (!valid || !reader.ok() || (version == kVersion && reader.remaining() != 0)) {
    return fail(ErrorKind::kMalformed, "malformed message of a hand-over: type {}, {} bytes", type,
                packet.size());
  }
  return message;
}

size_t descriptors_with(const Message& message) {
  return std::holds_alternative<Listener>(message) || std::holds_alternative<Waiting>(message) ||
                 std::holds_alternative<SessionState>(message)
             ? 1
             : 0;
}

}  // namespace underlay::handover
