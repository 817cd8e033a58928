#include "server/handshake.h"

#include <algorithm>
#include <cassert>

#include "server/limits.h"

namespace underlay {
namespace {

using nbd::Option;
using nbd::OptionReply;

constexpr size_t kClientFlagsBytes = 4;
constexpr size_t kOptionHeaderBytes = 16;
constexpr size_t kExportNameZeroes = 124;
constexpr std::string_view kAllocation = "base:allocation";
constexpr std::string_view kAllocationDepth = "qemu:allocation-depth";
constexpr std::string_view kDirtyBitmap = "qemu:dirty-bitmap:";

// Block sizes: any byte may be read; pages are best.
constexpr uint32_t kMinimumBlock = 1;
constexpr uint32_t kPreferredBlock = 4096;

bool valid_name(std::string_view name) {
  return name.size() <= nbd::kMaxString && name.find('\0') == std::string_view::npos;
}

}  // namespace

void Handshake::greet(WireBuffer& out) {
  out.put<uint64_t>(nbd::kMagic);
  out.put<uint64_t>(nbd::kOptionMagic);
  out.put<uint16_t>(nbd::kFlagFixedNewstyle | nbd::kFlagNoZeroes);
}

size_t Handshake::feed(ByteSpan in, WireBuffer& out) {
  assert(need_ == Need::kInput);
  size_t used = 0;
  while (need_ == Need::kInput) {
    size_t wanted = 0;
    switch (state_) {
      case State::kClientFlags:
        wanted = kClientFlagsBytes;
        break;
      case State::kOptionHeader:
        wanted = kOptionHeaderBytes;
        break;
      case State::kOptionData:
      case State::kDropData:
        wanted = length_;
        break;
    }
    if (state_ == State::kDropData) {
      const size_t part = std::min<size_t>(wanted - dropped_, in.size() - used);
      dropped_ += static_cast<uint32_t>(part);
      used += part;
      if (dropped_ < wanted) return used;
      state_ = State::kOptionHeader;
      refuse(OptionReply::kErrTooBig, "option data is too long", out);
      continue;
    }
    // Grows with what has arrived, not with what was announced.
    const size_t part = std::min(wanted - data_.size(), in.size() - used);
    const ByteSpan piece = in.subspan(used, part);
    data_.insert(data_.end(), piece.begin(), piece.end());
    used += part;
    if (data_.size() < wanted) return used;
    if (state_ == State::kOptionData) {
      state_ = State::kOptionHeader;
      take_option(out);
      std::vector<std::byte>().swap(data_);  // its memory, too: the connection may stay for long
    } else {
      const std::vector<std::byte> header = std::exchange(data_, {});
      state_ == State::kClientFlags ? take_client_flags(header) : take_option_header(header, out);
    }
  }
  return used;
}

void Handshake::take_client_flags(ByteSpan header) {
  const auto flags = load_be<uint32_t>(header, 0);
  fixed_newstyle_ = (flags & nbd::kClientFixedNewstyle) != 0;
  no_zeroes_ = (flags & nbd::kClientNoZeroes) != 0;
  state_ = State::kOptionHeader;
  // "The server MUST close the connection" for flags it does not know.
  if ((flags & ~(nbd::kClientFixedNewstyle | nbd::kClientNoZeroes)) != 0) need_ = Need::kClose;
}

void Handshake::take_option_header(ByteSpan header, WireBuffer& out) {
  ByteReader reader(header);
  const auto magic = reader.be<uint64_t>();
  option_ = static_cast<Option>(reader.be<uint32_t>());
  length_ = reader.be<uint32_t>();
  const bool allowed = fixed_newstyle_ || option_ == Option::kExportName;
  if (magic != nbd::kOptionMagic || !allowed || length_ > limits::kOptionLength ||
      ++options_ > limits::kHandshakeOptions) {
    need_ = Need::kClose;
    return;
  }
  // "NBD_OPT_SET_META_CONTEXT": each call replaces the set, also one that fails.
  if (option_ == Option::kSetMetaContext) negotiated_.drop_contexts();
  if (length_ > limits::kStoredOption) {
    // NBD_OPT_EXPORT_NAME has no error reply.
    if (option_ == Option::kExportName) need_ = Need::kClose;
    state_ = State::kDropData;
    dropped_ = 0;
    return;
  }
  state_ = State::kOptionData;
  if (length_ == 0) {
    state_ = State::kOptionHeader;
    take_option(out);
  }
}

void Handshake::take_option(WireBuffer& out) {
  if (misses_tls(out)) return;
  switch (option_) {
    case Option::kExportName:
      // Not defined once extended headers are on; a bad name cannot be answered.
      if (negotiated_.extended || !valid_name(as_text(data_))) {
        need_ = Need::kClose;
      } else {
        want_export(as_text(data_));
      }
      return;
    case Option::kAbort:
      reply(OptionReply::kAck, {}, out);
      need_ = Need::kClose;
      return;
    case Option::kList:
      return take_list(out);
    case Option::kInfo:
    case Option::kGo:
      return take_info_or_go(out);
    case Option::kStructuredReply:
      return take_structured_reply(out);
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return take_meta_context(out);
    case Option::kExtendedHeaders:
      return take_extended_headers(out);
    case Option::kStarttls:
      return take_starttls(out);
  }
  refuse(OptionReply::kErrUnsupported, "unknown option", out);
}

// "NBD_REP_ERR_TLS_REQD": what a server that demands TLS answers to all but these two.
bool Handshake::misses_tls(WireBuffer& out) {
  if (offer_.tls != TlsMode::kRequire || encrypted_) return false;
  if (option_ == Option::kStarttls || option_ == Option::kAbort) return false;
  if (option_ == Option::kExportName) {
    need_ = Need::kClose;
  } else {
    refuse(OptionReply::kErrTlsRequired, "this server demands TLS: say NBD_OPT_STARTTLS first",
           out);
  }
  return true;
}

void Handshake::take_starttls(WireBuffer& out) {
  if (offer_.tls == TlsMode::kOff) {
    return refuse(OptionReply::kErrPolicy, "this server does not offer TLS", out);
  }
  if (!data_.empty() || encrypted_) {
    return refuse(OptionReply::kErrInvalid, "NBD_OPT_STARTTLS takes no data, and comes once", out);
  }
  reply(OptionReply::kAck, {}, out);
  need_ = Need::kTls;
}

void Handshake::encrypted() {
  assert(need_ == Need::kTls);
  encrypted_ = true;
  negotiated_ = {};
  contexts_export_.clear();
  need_ = Need::kInput;
}

void Handshake::take_list(WireBuffer& out) {
  if (!data_.empty()) {
    return refuse(OptionReply::kErrInvalid, "NBD_OPT_LIST takes no data", out);
  }
  need_ = Need::kExportList;
}

void Handshake::take_structured_reply(WireBuffer& out) {
  if (!data_.empty() || negotiated_.extended) {
    return refuse(OptionReply::kErrInvalid,
                  "NBD_OPT_STRUCTURED_REPLY takes no data, and comes before extended headers", out);
  }
  negotiated_.structured = true;
  reply(OptionReply::kAck, {}, out);
}

void Handshake::take_extended_headers(WireBuffer& out) {
  if (!data_.empty() || negotiated_.extended) {
    return refuse(OptionReply::kErrInvalid,
                  "NBD_OPT_EXTENDED_HEADERS takes no data, and comes once", out);
  }
  negotiated_.structured = true;
  negotiated_.extended = true;
  reply(OptionReply::kAck, {}, out);
}

void Handshake::take_info_or_go(WireBuffer& out) {
  ByteReader reader(data_);
  const auto name_length = reader.be<uint32_t>();
  const std::string_view name = as_text(reader.bytes(name_length));
  const auto count = reader.be<uint16_t>();
  if (!reader.ok() || !valid_name(name) || reader.remaining() != size_t{count} * 2) {
    return refuse(OptionReply::kErrInvalid, "malformed NBD_OPT_INFO or NBD_OPT_GO", out);
  }
  want_name_ = want_description_ = want_block_size_ = false;
  for (uint16_t i = 0; i < count; ++i) {
    switch (static_cast<nbd::Info>(reader.be<uint16_t>())) {
      case nbd::Info::kName:
        want_name_ = true;
        break;
      case nbd::Info::kDescription:
        want_description_ = true;
        break;
      case nbd::Info::kBlockSize:
        want_block_size_ = true;
        break;
      case nbd::Info::kExport:
        break;  // always sent
    }
  }
  want_export(name);
}

void Handshake::take_meta_context(WireBuffer& out) {
  if (option_ == Option::kSetMetaContext && !negotiated_.structured) {
    return refuse(OptionReply::kErrInvalid, "negotiate structured replies first", out);
  }
  ByteReader reader(data_);
  const auto name_length = reader.be<uint32_t>();
  const std::string_view name = as_text(reader.bytes(name_length));
  const auto count = reader.be<uint32_t>();
  bool valid = reader.ok() && valid_name(name);
  want_allocation_ = want_depth_ = want_all_bitmaps_ =
      option_ == Option::kListMetaContext && count == 0;
  want_bitmaps_.clear();
  for (uint32_t i = 0; valid && i < count; ++i) {
    const auto length = reader.be<uint32_t>();
    const std::string_view query = as_text(reader.bytes(length));
    valid = reader.ok() && valid_name(query);
    if (valid) want_context(query);
  }
  if (!valid || reader.remaining() != 0) {
    return refuse(OptionReply::kErrInvalid, "malformed metadata context option", out);
  }
  want_export(name);
}

// A bare namespace lists what is in it, and selects nothing.
void Handshake::want_context(std::string_view query) {
  const bool list = option_ == Option::kListMetaContext;
  want_allocation_ |= query == kAllocation || (list && query == "base:");
  want_depth_ |= query == kAllocationDepth || (list && query == "qemu:");
  want_all_bitmaps_ |= list && (query == "qemu:" || query == kDirtyBitmap);
  if (query.starts_with(kDirtyBitmap))
    want_bitmaps_.emplace_back(query.substr(kDirtyBitmap.size()));
}

uint32_t Handshake::wanted_bitmaps(const ExportDescription& found) const {
  assert(found.dirty_bitmaps.size() <= limits::kDirtyBitmaps);
  uint32_t wanted = 0;
  for (size_t i = 0; i < found.dirty_bitmaps.size(); ++i) {
    const bool named = std::find(want_bitmaps_.begin(), want_bitmaps_.end(),
                                 found.dirty_bitmaps[i]) != want_bitmaps_.end();
    if (want_all_bitmaps_ || named) wanted |= uint32_t{1} << i;
  }
  return wanted;
}

void Handshake::want_export(std::string_view name) {
  wanted_ = name;
  need_ = Need::kExport;
}

void Handshake::export_found(const ExportDescription& found, WireBuffer& out) {
  assert(need_ == Need::kExport);
  need_ = Need::kInput;
  if (found.needs_tls && !encrypted_) {
    if (option_ == Option::kExportName) {
      need_ = Need::kClose;
    } else {
      refuse(OptionReply::kErrTlsRequired, "this export demands TLS: say NBD_OPT_STARTTLS first",
             out);
    }
    return;
  }
  switch (option_) {
    case Option::kExportName:
      return finish_export_name(found, out);
    case Option::kInfo:
    case Option::kGo:
      return finish_info_or_go(found, out);
    default:
      return finish_meta_context(found, out);
  }
}

void Handshake::export_missing(bool unknown, WireBuffer& out) {
  assert(need_ == Need::kExport);
  need_ = option_ == Option::kExportName ? Need::kClose : Need::kInput;
  if (need_ == Need::kClose) return;
  if (unknown) {
    refuse(OptionReply::kErrUnknown, "no such export", out);
  } else {
    refuse(OptionReply::kErrPlatform, "the image cannot be served: see the server's log", out);
  }
}

void Handshake::export_forbidden(std::string_view reason, WireBuffer& out) {
  assert(need_ == Need::kExport);
  need_ = option_ == Option::kExportName ? Need::kClose : Need::kInput;
  if (need_ == Need::kInput) refuse(OptionReply::kErrPolicy, reason, out);
}

void Handshake::exports_listed(const std::vector<ExportDescription>& exports, WireBuffer& out) {
  assert(need_ == Need::kExportList);
  need_ = Need::kInput;
  for (const ExportDescription& entry : exports) {
    if (entry.needs_tls && !encrypted_) continue;
    WireBuffer payload;
    payload.put<uint32_t>(static_cast<uint32_t>(entry.name.size()));
    payload.put_text(entry.name);
    payload.put_text(entry.description);
    reply(OptionReply::kServer, payload.bytes(), out);
  }
  reply(OptionReply::kAck, {}, out);
}

void Handshake::finish_export_name(const ExportDescription& found, WireBuffer& out) {
  out.put<uint64_t>(found.size);
  out.put<uint16_t>(transmission_flags());
  if (!no_zeroes_) out.put_zeros(kExportNameZeroes);
  begin_transmission(found);
}

void Handshake::finish_info_or_go(const ExportDescription& found, WireBuffer& out) {
  const auto info = [&](nbd::Info type, const auto& fill) {
    WireBuffer payload;
    payload.put<uint16_t>(static_cast<uint16_t>(type));
    fill(payload);
    reply(OptionReply::kInfo, payload.bytes(), out);
  };
  info(nbd::Info::kExport, [&](WireBuffer& payload) {
    payload.put<uint64_t>(found.size);
    payload.put<uint16_t>(transmission_flags());
  });
  if (want_name_) {
    info(nbd::Info::kName, [&](WireBuffer& payload) { payload.put_text(found.name); });
  }
  if (want_description_ && !found.description.empty()) {
    info(nbd::Info::kDescription,
         [&](WireBuffer& payload) { payload.put_text(found.description); });
  }
  if (want_block_size_) {
    info(nbd::Info::kBlockSize, [&](WireBuffer& payload) {
      payload.put<uint32_t>(kMinimumBlock);
      payload.put<uint32_t>(kPreferredBlock);
      payload.put<uint32_t>(nbd::kMaxPayload);
    });
  }
  reply(OptionReply::kAck, {}, out);
  if (option_ == Option::kGo) begin_transmission(found);
}

void Handshake::finish_meta_context(const ExportDescription& found, WireBuffer& out) {
  const bool list = option_ == Option::kListMetaContext;
  const bool depth = want_depth_ && offer_.allocation_depth;
  const uint32_t bitmaps = wanted_bitmaps(found);
  std::vector<std::string>().swap(want_bitmaps_);
  const auto context = [&](uint32_t id, std::string_view name) {
    WireBuffer payload;
    payload.put<uint32_t>(list ? 0 : id);
    payload.put_text(name);
    reply(OptionReply::kMetaContext, payload.bytes(), out);
  };
  if (want_allocation_) context(Negotiated::kAllocationId, kAllocation);
  if (depth) context(Negotiated::kAllocationDepthId, kAllocationDepth);
  for (uint32_t i = 0; i < found.dirty_bitmaps.size(); ++i) {
    if ((bitmaps >> i & 1) == 0) continue;
    context(Negotiated::kDirtyBitmapId + i, std::string(kDirtyBitmap) + found.dirty_bitmaps[i]);
  }
  reply(OptionReply::kAck, {}, out);
  if (list) return;
  negotiated_.allocation = want_allocation_;
  negotiated_.allocation_depth = depth;
  negotiated_.dirty_bitmaps = bitmaps;
  contexts_export_ = found.name;
}

void Handshake::begin_transmission(const ExportDescription& found) {
  // Contexts belong to the export that they were selected for.
  if (contexts_export_ != found.name) negotiated_.drop_contexts();
  need_ = Need::kDone;
}

void Handshake::adopt(const Negotiated& negotiated) {
  negotiated_ = negotiated;
  need_ = Need::kDone;
}

uint16_t Handshake::transmission_flags() const {
  // FLUSH and FUA ask nothing of a read-only server, and clients that saw them may send them.
  uint16_t flags =
      nbd::kHasFlags | nbd::kReadOnly | nbd::kSendFlush | nbd::kSendFua | nbd::kSendCache;
  if (offer_.multi_conn) flags |= nbd::kCanMultiConn;
  if (negotiated_.structured) flags |= nbd::kSendDf;
  return flags;
}

void Handshake::reply(OptionReply type, ByteSpan payload, WireBuffer& out) {
  out.put<uint64_t>(nbd::kOptionReplyMagic);
  out.put<uint32_t>(static_cast<uint32_t>(option_));
  out.put<uint32_t>(static_cast<uint32_t>(type));
  out.put<uint32_t>(static_cast<uint32_t>(payload.size()));
  out.put_text(as_text(payload));
}

void Handshake::refuse(OptionReply type, std::string_view message, WireBuffer& out) {
  reply(type, as_bytes(message), out);
}

}  // namespace underlay
