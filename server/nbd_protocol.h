// Numbers of the NBD protocol, as doc/proto.md of NetworkBlockDevice/nbd names them. All integers
// on the wire are big-endian.
#pragma once

#include <cstdint>

namespace underlay::nbd {

// Handshake ("Newstyle negotiation").
inline constexpr uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;

// Handshake flags, and the client's answer to them.
inline constexpr uint16_t kFlagFixedNewstyle = 1 << 0;
inline constexpr uint16_t kFlagNoZeroes = 1 << 1;
inline constexpr uint32_t kClientFixedNewstyle = 1 << 0;
inline constexpr uint32_t kClientNoZeroes = 1 << 1;

// "Option types".
enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStarttls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
  kExtendedHeaders = 11,
};

// "Option reply types".
inline constexpr uint32_t kReplyError = 1u << 31;
enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsupported = kReplyError | 1,
  kErrPolicy = kReplyError | 2,
  kErrInvalid = kReplyError | 3,
  kErrPlatform = kReplyError | 4,
  kErrTlsRequired = kReplyError | 5,
  kErrUnknown = kReplyError | 6,
  kErrTooBig = kReplyError | 9,
};

// "Information types" of kInfo and kGo.
enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

// "Transmission flags".
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kSendDf = 1 << 7;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendCache = 1 << 10;

// Requests.
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr size_t kRequestBytes = 28;
inline constexpr size_t kExtendedRequestBytes = 32;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

// "Command flags".
inline constexpr uint16_t kCommandFua = 1 << 0;
inline constexpr uint16_t kCommandNoHole = 1 << 1;
inline constexpr uint16_t kCommandDf = 1 << 2;
inline constexpr uint16_t kCommandReqOne = 1 << 3;
inline constexpr uint16_t kCommandFastZero = 1 << 4;
inline constexpr uint16_t kCommandPayloadLength = 1 << 5;

// Replies.
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr uint32_t kExtendedReplyMagic = 0x6e8a278c;
inline constexpr uint16_t kReplyDone = 1 << 0;

// "Structured reply types".
enum class Chunk : uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kOffsetHole = 2,
  kBlockStatus = 5,
  kBlockStatusExt = 6,
  kError = (1 << 15) | 1,
};

// "Error values": those that a read-only server needs.
enum class WireError : uint32_t {
  kNone = 0,
  kPerm = 1,
  kIo = 5,
  kInvalid = 22,
};

// "base:allocation" metadata context.
inline constexpr uint32_t kStateHole = 1 << 0;
inline constexpr uint32_t kStateZero = 1 << 1;
// "qemu:dirty-bitmap:" metadata context (docs/interop/nbd.txt of QEMU).
inline constexpr uint32_t kStateDirty = 1 << 0;

// "Values": a string has at most this many bytes.
inline constexpr size_t kMaxString = 4096;
// "Size constraints": every server takes requests of this length.
inline constexpr uint32_t kMaxPayload = 32 << 20;

}  // namespace underlay::nbd
