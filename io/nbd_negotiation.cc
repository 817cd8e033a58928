#include "io/nbd_negotiation.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <optional>
#include <string>
#include <vector>

#include "io/bytes.h"

namespace underlay {
namespace {

constexpr uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr uint64_t kOptionReplyMagic = 0x3e889045565a9;
constexpr uint16_t kFixedNewstyle = 1 << 0;
constexpr uint16_t kNoZeroes = 1 << 1;

constexpr uint32_t kStarttls = 5;
constexpr uint32_t kGo = 7;

constexpr uint32_t kAck = 1;
constexpr uint32_t kInfo = 3;
constexpr uint32_t kError = 1u << 31;
constexpr uint32_t kErrUnsupported = kError | 1;
constexpr uint32_t kErrPolicy = kError | 2;
constexpr uint32_t kErrUnknown = kError | 6;

constexpr uint16_t kInfoExport = 0;
constexpr uint16_t kInfoBlockSize = 3;

// "Transmission flags": all that a client without structured replies may be told.
constexpr uint16_t kHasFlags = 1 << 0;
constexpr uint16_t kKnownFlags = 0b1101'0111'1111;

// "Values": a string has at most 4096 bytes. Of what a server may answer, nothing is longer.
constexpr uint32_t kMaxReply = 2 + 4096;
constexpr unsigned kMaxReplies = 64;  // to one option

struct OptionReply {
  uint32_t type = 0;
  std::vector<std::byte> data;  // at most kMaxReply

  bool is_error() const { return (type & kError) != 0; }
};

Result<void> send_option(TimedSocket& socket, uint32_t option, ByteSpan data) {
  std::vector<std::byte> message(16 + data.size());
  store_be(message, 0, kOptionMagic);
  store_be(message, 8, option);
  store_be(message, 12, static_cast<uint32_t>(data.size()));
  std::copy(data.begin(), data.end(), message.begin() + 16);
  return socket.send(message);
}

Result<OptionReply> receive_reply(TimedSocket& socket, uint32_t option) {
  std::array<std::byte, 20> header{};
  TRY(socket.receive(header));
  const auto magic = load_be<uint64_t>(header, 0);
  const auto answered = load_be<uint32_t>(header, 8);
  const auto length = load_be<uint32_t>(header, 16);
  if (magic != kOptionReplyMagic) {
    return fail(ErrorKind::kMalformed,
                "the server's answer to option {} begins with {:#x}, not {:#x}", option, magic,
                kOptionReplyMagic);
  }
  if (answered != option) {
    return fail(ErrorKind::kMalformed, "the server answers option {}, and was asked {}", answered,
                option);
  }
  if (length > kMaxReply) {
    return fail(ErrorKind::kMalformed,
                "the server's answer to option {} has {} bytes, and at most {} may be", option,
                length, kMaxReply);
  }
  OptionReply reply{.type = load_be<uint32_t>(header, 12), .data = std::vector<std::byte>(length)};
  TRY(socket.receive(reply.data));
  return reply;
}

// What the server says to explain an error.
std::string explanation(const OptionReply& reply) {
  if (reply.data.empty()) return "";
  return ": \"" + printable(as_text(reply.data), 400) + "\"";
}

Failure strange_reply(const OptionReply& reply, std::string_view option) {
  return fail(ErrorKind::kMalformed, "the server answers {} with type {:#x} and {} bytes", option,
              reply.type, reply.data.size());
}

// The server's handshake flags.
Result<uint16_t> receive_greeting(TimedSocket& socket) {
  std::array<std::byte, 18> greeting{};
  TRY(socket.receive(MutableByteSpan(greeting).first(8)));
  if (load_be<uint64_t>(greeting, 0) != kMagic) {
    return fail(ErrorKind::kMalformed, "this is no NBD server: it does not begin with NBDMAGIC");
  }
  TRY(socket.receive(MutableByteSpan(greeting).subspan(8)));
  const auto flags = load_be<uint16_t>(greeting, 16);
  if (load_be<uint64_t>(greeting, 8) != kOptionMagic || (flags & kFixedNewstyle) == 0) {
    return fail(ErrorKind::kDenied,
                "the server has no TLS: it does not speak the fixed newstyle handshake");
  }
  return flags;
}

// Takes one of the informations in. Those that are of no use here are passed over.
Result<void> take_info(ByteSpan data, std::optional<NegotiatedExport>& told, uint32_t& min_block) {
  ByteReader reader(data);
  const auto type = reader.be<uint16_t>();
  if (!reader.ok()) return fail(ErrorKind::kMalformed, "the server sent an information of no type");
  if (type == kInfoExport) {
    NegotiatedExport one;
    one.size_bytes = reader.be<uint64_t>();
    const auto flags = reader.be<uint16_t>();
    if (!reader.ok() || reader.remaining() != 0 || (flags & kHasFlags) == 0) {
      return fail(
          ErrorKind::kMalformed,
          "the server describes the export in {} bytes with flags {:#x}: 12 bytes and bit 0 "
          "set must be",
          data.size(), flags);
    }
    if (one.size_bytes > uint64_t{INT64_MAX}) {
      return fail(ErrorKind::kLimit, "the export has {} bytes: more than 2^63 - 1 cannot be attached",
                  one.size_bytes);
    }
    one.transmission_flags = flags & kKnownFlags;
    told = one;
  } else if (type == kInfoBlockSize) {
    min_block = reader.be<uint32_t>();
    reader.skip(2 * sizeof(uint32_t));  // the preferred and the largest are not for the kernel
    if (!reader.ok() || reader.remaining() != 0 || !std::has_single_bit(min_block)) {
      return fail(ErrorKind::kMalformed,
                  "the server gives its block sizes in {} bytes, at least {}: 14 bytes and a power "
                  "of two must be",
                  data.size(), min_block);
    }
  }
  return {};
}

Failure refused_export(const OptionReply& reply, std::string_view name) {
  if (reply.type == kErrUnknown) {
    return fail(ErrorKind::kNotFound, "the server has no export named '{}'{}", printable(name, 400),
                explanation(reply));
  }
  if (reply.type == kErrUnsupported) {
    return fail(ErrorKind::kUnsupported, "the server is too old: it does not know NBD_OPT_GO{}",
                explanation(reply));
  }
  return fail(ErrorKind::kDenied, "the server refuses the export '{}' with error {}{}",
              printable(name, 400), reply.type & ~kError, explanation(reply));
}

}  // namespace

Result<void> negotiate_starttls(TimedSocket& socket) {
  const uint16_t offered = TRY(receive_greeting(socket));
  std::array<std::byte, 4> flags{};
  store_be(flags, 0, static_cast<uint32_t>(kFixedNewstyle | (offered & kNoZeroes)));
  TRY(socket.send(flags));
  TRY(send_option(socket, kStarttls, {}));
  const OptionReply reply = TRY(receive_reply(socket, kStarttls));
  if (reply.type == kAck && reply.data.empty()) return {};
  if (!reply.is_error()) return strange_reply(reply, "NBD_OPT_STARTTLS");
  const bool without = reply.type == kErrUnsupported || reply.type == kErrPolicy;
  return fail(ErrorKind::kDenied, "the server {}{}",
              without ? std::string("does not offer TLS")
                      : fmt::format("refuses TLS with error {}", reply.type & ~kError),
              explanation(reply));
}

Result<NegotiatedExport> negotiate_go(TimedSocket& socket, std::string_view name) {
  assert(name.size() <= kMaxExportName);
  const ByteSpan name_bytes = as_bytes(name);
  std::vector<std::byte> data(4 + name.size() + 4);
  store_be(data, 0, static_cast<uint32_t>(name.size()));
  std::copy(name_bytes.begin(), name_bytes.end(), data.begin() + 4);
  store_be(data, 4 + name.size(), uint16_t{1});  // one wish
  store_be(data, 4 + name.size() + 2, kInfoBlockSize);
  TRY(send_option(socket, kGo, data));
  std::optional<NegotiatedExport> told;
  uint32_t min_block = 1;
  for (unsigned count = 0; count < kMaxReplies; ++count) {
    const OptionReply reply = TRY(receive_reply(socket, kGo));
    if (reply.is_error()) return refused_export(reply, name);
    if (reply.type == kInfo) {
      TRY(take_info(reply.data, told, min_block));
      continue;
    }
    if (reply.type != kAck || !reply.data.empty() || !told) {
      return strange_reply(reply, told ? "NBD_OPT_GO" : "NBD_OPT_GO, without the export's size,");
    }
    told->min_block = min_block;
    return *told;
  }
  return fail(ErrorKind::kLimit, "the server sent more than {} answers to NBD_OPT_GO", kMaxReplies);
}

}  // namespace underlay
