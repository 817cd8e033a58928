// Any bytes as what an NBD client says: the handshake and the requests after it must keep the
// contracts of server/handshake.h, request.h, reply.h and block_status.h, within bounded memory.
// The first byte of the input chooses what the server offers and in what pieces it hears. Aborts
// when a rule breaks.
#include <algorithm>
#include <string>

#include "fuzz/reply_rules.h"
#include "fuzz/rules.h"
#include "server/handshake.h"
#include "server/limits.h"
#include "server/request.h"
#include "tests/support/heap.h"

namespace underlay {
namespace {

using Need = Handshake::Need;

// What one connection may cost beside its replies: an option's data and what it is parsed to.
constexpr size_t kMemory = 2 * limits::kStoredOption + (64 << 10);

// What the server said since the last check; its memory is given back.
void check_answers(WireBuffer& out) {
  ByteReader reader(out.bytes());
  while (reader.remaining() > 0) {
    require(reader.be<uint64_t>() == nbd::kOptionReplyMagic, "an option reply has its magic");
    (void)reader.be<uint32_t>();
    const auto type = reader.be<uint32_t>();
    const ByteSpan payload = reader.bytes(reader.be<uint32_t>());
    require(reader.ok(), "an option reply is as long as it says");
    const bool error = (type & nbd::kReplyError) != 0;
    require(!error || printable(as_text(payload)) == as_text(payload), "an error is printable");
    require(type != static_cast<uint32_t>(nbd::OptionReply::kAck) || payload.empty(),
            "an ACK is empty");
  }
  out = WireBuffer();
}

void answer_need(Handshake& handshake, WireBuffer& out) {
  const ExportDescription found = fuzzed_export().describe();
  if (handshake.need() == Need::kExportList) return handshake.exports_listed({found}, out);
  if (handshake.need() != Need::kExport) return;
  const std::string& wanted = handshake.wanted_export();
  require(wanted.size() <= nbd::kMaxString && wanted.find('\0') == std::string::npos,
          "an export's name is a string");
  // By a byte of the name: found, unknown, not to be served.
  if (wanted.empty() || wanted.size() % 4 == 0) return handshake.export_found(found, out);
  handshake.export_missing(wanted.front() % 2 == 0, out);
}

// The handshake on the front of `input`; what is left is for the transmission phase.
void negotiate(Handshake& handshake, size_t piece, ByteSpan& input) {
  WireBuffer out;
  handshake.greet(out);
  require(out.bytes().size() == 18, "the greeting has 18 bytes");
  out = WireBuffer();
  const size_t before = allocated_bytes();
  while (handshake.need() == Need::kInput && !input.empty()) {
    const ByteSpan part = input.first(std::min(piece, input.size()));
    const size_t used = handshake.feed(part, out);
    require(used <= part.size(), "no more is consumed than there is");
    require(used == part.size() || handshake.need() != Need::kInput, "all input is consumed");
    input = input.subspan(used);
    if (handshake.need() == Need::kTls) {
      check_answers(out);
      handshake.encrypted();  // what follows counts as what was decrypted
    }
    if (handshake.need() == Need::kExport || handshake.need() == Need::kExportList) {
      answer_need(handshake, out);
      require(handshake.need() != Need::kExport && handshake.need() != Need::kExportList,
              "an answer meets the need");
    }
    // NBD_OPT_EXPORT_NAME is answered without the head of an option reply.
    if (handshake.need() != Need::kDone) check_answers(out);
    require(allocated_bytes() <= before + out.bytes().size() + kMemory, "memory is bounded");
  }
}

void check_request(const Request& request, const Negotiated& negotiated) {
  const uint64_t payload = payload_bytes(request, negotiated);
  require(payload == 0 || request.command == nbd::Command::kWrite ||
              (negotiated.extended && (request.flags & nbd::kCommandPayloadLength) != 0),
          "only WRITE and stated payloads follow a request");
  const nbd::WireError error = validate_request(request, negotiated, fuzzed_export().size());
  if (error != nbd::WireError::kNone) return check_refusal(request, negotiated, error);
  require(request.command != nbd::Command::kWrite && request.command != nbd::Command::kTrim &&
              request.command != nbd::Command::kWriteZeroes,
          "nothing is written");
  if (request.command != nbd::Command::kFlush) {
    require(range_within(request.offset, request.length, fuzzed_export().size()),
            "a valid request lies within the export");
  }
  require(request.command != nbd::Command::kRead || request.length <= nbd::kMaxPayload,
          "a read has a bounded length");
  check_replies(request, negotiated);
}

void transmit(const Negotiated& negotiated, ByteSpan input) {
  require(!negotiated.extended || negotiated.structured, "extended headers are structured");
  require(negotiated.structured || !negotiated.any_context(), "contexts need structured replies");
  while (starts_request(input, negotiated) && input.size() >= request_bytes(negotiated)) {
    const size_t header = request_bytes(negotiated);
    const Request request = parse_request(input.first(header), negotiated);
    if (request.command == nbd::Command::kDisconnect) return;
    check_request(request, negotiated);
    const uint64_t rest = input.size() - header;
    input = input.subspan(header +
                          static_cast<size_t>(std::min(rest, payload_bytes(request, negotiated))));
  }
}

void run(ByteSpan input) {
  if (input.empty()) return;
  const auto choice = std::to_integer<unsigned>(input[0]);
  input = input.subspan(1);
  const bool tls = (choice & 12) == 12;
  const HandshakeOffer offer{
      .allocation_depth = (choice & 1) != 0,
      .multi_conn = (choice & 2) != 0,
      .tls = !tls ? TlsMode::kOff : (choice & 16) != 0 ? TlsMode::kRequire : TlsMode::kOffer};
  const size_t piece = choice < 64 ? SIZE_MAX : choice / 16;
  (void)fuzzed_export();  // made before memory is counted
  Handshake handshake(offer);
  negotiate(handshake, piece, input);
  if (handshake.need() != Need::kDone) return;
  require(!handshake.negotiated().allocation_depth || offer.allocation_depth,
          "only what is offered is selected");
  transmit(handshake.negotiated(), input);
}

}  // namespace
}  // namespace underlay

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  underlay::run(std::as_bytes(std::span(data, size)));
  return 0;
}
