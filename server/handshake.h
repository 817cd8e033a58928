// The handshake of one client: fixed newstyle negotiation, server side (doc/proto.md, "Newstyle
// negotiation", "Option haggling"). Pure: bytes in, bytes and needs out. No socket, no clock, no
// disk, so that tests and fuzzers drive it directly.
//
//   greet() -> [feed() -> need()]* -> kDone or kClose
//                 ^          |
//                 |          +-- kExport: look it up, then export_found() / export_missing()
//                 +-- kInput +-- kExportList: then exports_listed()
//                            +-- kTls: encrypt the connection, then encrypted()
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"
#include "server/nbd_protocol.h"
#include "server/wire_buffer.h"

namespace underlay {

// What the handshake tells of an export.
struct ExportDescription {
  std::string name;
  std::string description;
  uint64_t size = 0;  // bytes; these two are only used where an export is opened
  std::vector<std::string> dirty_bitmaps{};  // their names, at most limits::kDirtyBitmaps
  bool needs_tls = false;                    // only for clients whose connection is encrypted
};

// Which replies and contexts a client has negotiated.
struct Negotiated {
  bool structured = false;        // also true when `extended`
  bool extended = false;          // 32-byte requests, 64-bit lengths
  bool allocation = false;        // context base:allocation, id kAllocationId
  bool allocation_depth = false;  // context qemu:allocation-depth, id kAllocationDepthId
  // Bit i: context qemu:dirty-bitmap:NAME of the export's bitmap number i, id kDirtyBitmapId + i.
  uint32_t dirty_bitmaps = 0;

  static constexpr uint32_t kAllocationId = 1;
  static constexpr uint32_t kAllocationDepthId = 2;
  static constexpr uint32_t kDirtyBitmapId = 3;

  bool any_context() const { return allocation || allocation_depth || dirty_bitmaps != 0; }
  void drop_contexts() {
    allocation = allocation_depth = false;
    dirty_bitmaps = 0;
  }
};

enum class TlsMode : uint8_t {
  kOff,      // NBD_OPT_STARTTLS is refused
  kOffer,    // clients may encrypt
  kRequire,  // and must ("FORCEDTLS")
};

// What a server offers to its clients beyond the export itself.
struct HandshakeOffer {
  bool allocation_depth = false;  // qemu:allocation-depth may be selected (-A)
  bool multi_conn = false;        // several connections of one client are welcome
  TlsMode tls = TlsMode::kOff;
};

class Handshake {
 public:
  enum class Need : uint8_t {
    kInput,       // more bytes from the client
    kExport,      // the export wanted_export()
    kExportList,  // the names of all exports
    kTls,         // encryption, once what was written has been sent
    kDone,        // nothing: transmission begins, as negotiated() says
    kClose,       // nothing: send what was written, then close
  };

  explicit Handshake(HandshakeOffer offer) : offer_(offer) {}

  // The server's first words.
  void greet(WireBuffer& out);

  // Consumes bytes from the front of `in` until something is needed, and writes replies to `out`.
  // Returns the number of bytes consumed: all of them unless need() is not kInput. After kDone, the
  // rest is the client's first requests. REQUIRES: need() == kInput.
  size_t feed(ByteSpan in, WireBuffer& out);

  // Answers kTls. All that the client has negotiated before is forgotten, and more than once is not
  // possible. What it said before this, beyond what feed() consumed, must never be fed.
  void encrypted();

  // Instead of all that: another process has negotiated with this client. need() is kDone then.
  void adopt(const Negotiated& negotiated);

  Need need() const { return need_; }
  const std::string& wanted_export() const { return wanted_; }
  const Negotiated& negotiated() const { return negotiated_; }

  // Answers kExport. After it, need() is what comes next.
  void export_found(const ExportDescription& found, WireBuffer& out);
  // `unknown`: there is no such export; otherwise it exists but cannot be served.
  void export_missing(bool unknown, WireBuffer& out);
  // It is there, but not for this client, for a reason that it may know.
  void export_forbidden(std::string_view reason, WireBuffer& out);
  // Is the export wanted for more than information about it?
  bool wants_transmission() const {
    return option_ == nbd::Option::kGo || option_ == nbd::Option::kExportName;
  }
  // Answers kExportList.
  void exports_listed(const std::vector<ExportDescription>& exports, WireBuffer& out);

 private:
  enum class State : uint8_t { kClientFlags, kOptionHeader, kOptionData, kDropData };

  void take_client_flags(ByteSpan header);
  void take_option_header(ByteSpan header, WireBuffer& out);
  void take_option(WireBuffer& out);
  void take_list(WireBuffer& out);
  void take_info_or_go(WireBuffer& out);
  void take_starttls(WireBuffer& out);
  bool misses_tls(WireBuffer& out);
  void take_structured_reply(WireBuffer& out);
  void take_extended_headers(WireBuffer& out);
  void take_meta_context(WireBuffer& out);
  void want_context(std::string_view query);
  uint32_t wanted_bitmaps(const ExportDescription& found) const;
  void want_export(std::string_view name);
  void finish_export_name(const ExportDescription& found, WireBuffer& out);
  void finish_info_or_go(const ExportDescription& found, WireBuffer& out);
  void finish_meta_context(const ExportDescription& found, WireBuffer& out);
  void begin_transmission(const ExportDescription& found);
  uint16_t transmission_flags() const;

  void reply(nbd::OptionReply type, ByteSpan payload, WireBuffer& out);
  void refuse(nbd::OptionReply type, std::string_view message, WireBuffer& out);

  const HandshakeOffer offer_;
  State state_ = State::kClientFlags;
  Need need_ = Need::kInput;
  bool encrypted_ = false;
  bool fixed_newstyle_ = false;
  bool no_zeroes_ = false;
  unsigned options_ = 0;

  nbd::Option option_{};         // the option at hand
  uint32_t length_ = 0;          // its data, as stated
  uint32_t dropped_ = 0;         // of data too long to store
  std::vector<std::byte> data_;  // header or data received so far

  std::string wanted_;
  bool want_name_ = false;  // information that INFO or GO asked for
  bool want_description_ = false;
  bool want_block_size_ = false;
  bool want_allocation_ = false;  // contexts that a metadata context option asked for
  bool want_depth_ = false;
  bool want_all_bitmaps_ = false;
  std::vector<std::string> want_bitmaps_;  // names

  Negotiated negotiated_;
  std::string contexts_export_;  // the export that the selected contexts belong to
};

}  // namespace underlay
