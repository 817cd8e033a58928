// Reads that are answered without a copy: from the page cache, from unpacked clusters, with holes
// or zeros.
#include <algorithm>

#include "server/reply_memory.h"
#include "server/session.h"

namespace underlay {

namespace {

constexpr std::string_view kCannotRead = "cannot read the image";

// Of clusters that are much longer than what is wanted of them, a copy takes less memory.
constexpr uint64_t kHeldForEachByte = 2;

// Bytes that are kept alive until the reply has been sent.
uint64_t held_bytes(std::span<const ReplyPart> parts) {
  uint64_t sum = 0;
  for (const ReplyPart& part : parts) {
    if (part.extent.is_loaded()) sum += part.extent.cluster_length;
  }
  return sum;
}

}  // namespace

// Into parts_: what the reply can be sent from, once the clusters among it are unpacked. False when
// there is something else in the range, or too much.
bool Session::find_parts(const Request& request) {
  const Disk& disk = export_->disk();
  parts_.clear();
  for (uint64_t at = 0; at < request.length; at += parts_.back().extent.length) {
    if (parts_.size() == limits::kReplyParts) return false;
    const uint64_t offset = request.offset + at;
    const auto extent = disk.map(offset, request.length - at, MapFor::kReadNow);
    if (!extent) return false;
    if (extent->kind == Extent::Kind::kData &&
        !(!tls_ && extent->source->fd() &&
          extent->source->in_memory(extent->source_offset, extent->length))) {
      return false;
    }
    parts_.push_back({.extent = *extent,
                      .offset = offset,
                      .cluster = extent->is_loaded() ? disk.find_unpacked(*extent) : nullptr});
  }
  const uint64_t most = kHeldForEachByte * request.length;
  return held_bytes(parts_) <= std::min(most, host_.buffers().left() / (2 * BufferPool::kShare));
}

// Answers from parts_, or has workers unpack what they lack. False when the request must wait:
// nothing was done then.
bool Session::start_parts(const Request& request) {
  const bool ready = std::all_of(parts_.begin(), parts_.end(),
                                 [](const ReplyPart& part) { return part.is_ready(); });
  const bool too_many =
      operation_bytes_ > 0 && operation_bytes_ + request.length >
                                  share_of_reply_memory(limits::kOperationBytes, host_.buffers());
  if (memory_wanted_ || (!ready && too_many)) return false;
  const uint64_t held = held_bytes(parts_);
  auto headers = host_.buffers().allocate(
      std::max(parts_.size() * ReplyWriter::kMaxHeader, ReplyWriter::kMaxError),
      held > 0 ? ByteBudget::Use::kBulk : ByteBudget::Use::kSmall, held);
  if (!headers) {
    memory_wanted();
    return false;
  }
  widen_socket();
  if (ready) {
    if (request.tries > 0) end_hold(request, true);
    queue_parts(request, parts_, *std::move(headers));
    count(request, true);
    parts_.clear();
    return true;
  }
  ++operations_;
  operation_bytes_ += request.length;
  ClusterRead::start(host_.ring(), host_.workers(), *this, *export_, request, std::move(parts_),
                     *std::move(headers));
  return true;
}

void Session::clusters_unpacked(std::unique_ptr<ClusterRead> read) {
  const Request& request = read->request();
  --operations_;
  operation_bytes_ -= request.length;
  schedule_pump();
  if (!read->result() && hold(request, read->result().error())) return;
  end_hold(request, read->result().has_value());
  if (phase_ == Phase::kClosed) return;
  count_late(request, read->result().has_value());
  if (read->result()) return queue_parts(request, read->parts(), read->take_headers());
  // Without waiting for memory: there is room for it.
  Buffer headers = read->take_headers();
  const MutableByteSpan room(headers.data(), headers.capacity());
  const ReplyWriter writer(handshake_.negotiated(), request);
  queue_.append(room.first(writer.put_error(room, nbd::WireError::kIo, kCannotRead)));
  queue_.append_owner(std::move(headers));
  log_failure(request, read->result().error());
}

// A chunk for each hole and for each run of data between them.
void Session::queue_parts(const Request& request, std::span<ReplyPart> parts, Buffer headers) {
  const ReplyWriter writer(handshake_.negotiated(), request);
  const bool holes = holes_allowed(request);
  const auto is_hole = [&](const ReplyPart& part) {
    return holes && part.extent.kind == Extent::Kind::kZero;
  };
  MutableByteSpan room(headers.data(), headers.capacity());
  while (!parts.empty()) {
    const bool hole = is_hole(parts.front());
    const uint64_t offset = parts.front().offset;
    size_t alike = 0;
    uint64_t length = 0;
    while (alike < parts.size() && is_hole(parts[alike]) == hole) {
      length += parts[alike++].extent.length;
    }
    const bool last = alike == parts.size();
    const size_t header = hole ? writer.put_hole(room, offset, length, last)
                               : writer.put_data_header(room, offset, length, last);
    queue_.append(room.first(header));
    room = room.subspan(header);
    for (ReplyPart& part : parts.first(hole ? 0 : alike)) queue_part(part);
    parts = parts.subspan(alike);
  }
  queue_.append_owner(std::move(headers));
}

void Session::queue_part(ReplyPart& part) {
  const Extent& extent = part.extent;
  if (extent.kind != Extent::Kind::kZero) export_->disk().note_read(extent, extent.length);
  switch (extent.kind) {
    case Extent::Kind::kZero:
      return queue_.append_zeros(extent.length);
    case Extent::Kind::kCompressed:
    case Extent::Kind::kCopied: {
      const ByteSpan bytes = export_->disk().part_of_cluster(*part.cluster, extent, part.offset);
      return queue_.append_block(std::move(part.cluster), bytes);
    }
    default:
      return queue_.append_file(*extent.source->fd(), extent.source_offset,
                                static_cast<size_t>(extent.length));
  }
}

}  // namespace underlay
