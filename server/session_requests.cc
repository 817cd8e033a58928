// The transmission phase of a session: requests in, replies out.
#include <algorithm>
#include <cassert>
#include <cstring>

#include "server/reply_memory.h"
#include "server/session.h"

namespace underlay {

using nbd::Command;
using nbd::WireError;

bool Session::consume_transmission() {
  if (payload_left_ > 0) return consume_payload();
  const Negotiated& negotiated = handshake_.negotiated();
  if (!starts_request(input(), negotiated)) {
    host_.log().detail("a client sent no request where one must stand: connection closed",
                       log_fields());
    close();
    return false;
  }
  const size_t header = request_bytes(negotiated);
  if (input().size() < header) return false;
  Request request = parse_request(input().first(header), negotiated);
  request.received = waits_since_.value_or(received_at_);
  request_waits_ = !handle(request);
  waits_since_.reset();
  if (request_waits_) waits_since_ = request.received;
  if (request_waits_) return false;
  admitted_ = false;
  input_begin_ += header;
  return true;
}

// Drops what is left of a payload, then answers the request that it belongs to.
bool Session::consume_payload() {
  const size_t part = std::min<uint64_t>(payload_left_, input().size());
  if (part == 0) return false;
  if (part == payload_left_ && !reply_error(payload_request_, payload_error_)) return false;
  payload_left_ -= part;
  input_begin_ += part;
  return true;
}

// False when the request must wait for memory or for others to finish; nothing was done then.
bool Session::handle(const Request& request) {
  if (request.command == Command::kDisconnect) {
    phase_ = Phase::kDraining;
    return true;
  }
  const Negotiated& negotiated = handshake_.negotiated();
  const WireError error = validate_request(request, negotiated, export_->size());
  const uint64_t payload = payload_bytes(request, negotiated);
  if (payload > 0) {
    payload_left_ = payload;
    payload_request_ = request;
    payload_error_ = error == WireError::kNone ? WireError::kInvalid : error;
    return true;
  }
  if (error != WireError::kNone) return reply_error(request, error);
  // Validated: the request is within the export and of bounded length from here on.
  if (request.command == Command::kFlush || request.length == 0) return reply_success(request);
  return admit(request) && start_request(request);
}

// The same of a request that was validated and reads.
bool Session::start_request(const Request& request) {
  if (export_->changed()) {
    if (hold_of_changed(request)) return true;
    if (!reply_error(request, WireError::kIo)) return false;
    end_hold(request, false);
    return true;
  }
  if (request.command == Command::kRead) return start_read(request);
  if (worker_operations_ == limits::kWorkerOperations) return false;
  ++worker_operations_;
  ++operations_;
  WorkerOperation::start(host_.ring(), host_.workers(), *this, *export_, handshake_.negotiated(),
                         request);
  return true;
}

bool Session::start_read(const Request& request) {
  read_ahead_.note(*export_, request.offset, request.length);
  const size_t send_file = is_unix_socket_ ? limits::kSendFile : limits::kSendFileTcp;
  if (request.length >= send_file && find_parts(request)) return start_parts(request);
  const bool short_read = request.length <= limits::kInlineRead;
  if (short_read && read_inline(request)) {
    if (request.tries > 0) end_hold(request, true);
    return true;
  }
  if (memory_wanted_) return false;
  if (operation_bytes_ > 0 && operation_bytes_ + request.length >
                                  share_of_reply_memory(limits::kOperationBytes, host_.buffers())) {
    return false;  // read_done() pumps again
  }
  auto buffer =
      host_.buffers().allocate(static_cast<size_t>(request.length), ByteBudget::Use::kBulk);
  if (!buffer) {
    memory_wanted();
    return false;
  }
  ++operations_;
  operation_bytes_ += request.length;
  using Memory = ReadOperation::Memory;
  take_read_operation().start(*export_, request, *std::move(buffer), holes_allowed(request),
                              short_read ? Memory::kMissed : Memory::kUnknown);
  if (operations_ == 1) read_ahead_.help(*export_, request.offset, request.length);
  return true;
}

// The fast path: everything is in memory, and goes straight behind its header. False when it is not
// (or there is no room): nothing was queued.
bool Session::read_inline(const Request& request) {
  const auto length = static_cast<size_t>(request.length);
  const MutableByteSpan room = queue_.reserve(ReplyWriter::kMaxHeader + length);
  if (room.empty()) {
    memory_wanted();
    return false;
  }
  const ReplyWriter writer(handshake_.negotiated(), request);
  const size_t header = writer.put_data_header(room, request.offset, length, true);
  const MutableByteSpan data = room.subspan(header, length);
  ZeroRuns* holes = holes_allowed(request) ? &inline_zeros_ : nullptr;
  inline_zeros_.clear();
  if (export_->disk().read_from_memory(request.offset, data, holes) < length) return false;
  for (const ZeroRuns::Run& run : inline_zeros_) {
    if (run.length == length) {
      queue_.commit(writer.put_hole(room, request.offset, length, true));
      count(request, true);
      return true;
    }
    // A reply this short is one chunk.
    std::memset(data.data() + run.offset, 0, static_cast<size_t>(run.length));
  }
  queue_.commit(header + length);
  count(request, true);
  return true;
}

bool Session::holes_allowed(const Request& request) const {
  return handshake_.negotiated().structured && (request.flags & nbd::kCommandDf) == 0;
}

ReadOperation& Session::take_read_operation() {
  if (free_reads_.empty()) {
    ReadOwner& owner = *this;
    reads_.push_back(std::make_unique<ReadOperation>(host_.ring(), host_.workers(), owner));
    return *reads_.back();
  }
  ReadOperation* operation = free_reads_.back();
  free_reads_.pop_back();
  return *operation;
}

void Session::read_done(ReadOperation& operation) {
  --operations_;
  operation_bytes_ -= operation.request().length;
  if (!operation.result() && hold(operation.request(), operation.result().error())) {
    (void)operation.take_buffer();
    free_reads_.push_back(&operation);
  } else {
    end_hold(operation.request(), operation.result().has_value());
    finished_reads_.push_back(&operation);
  }
  schedule_pump();
}

void Session::operation_done(std::unique_ptr<WorkerOperation> operation) {
  --operations_;
  if (!operation->result() && hold(operation->request(), operation->result().error())) {
    --worker_operations_;
  } else {
    end_hold(operation->request(), operation->result().has_value());
    finished_operations_.push_back(std::move(operation));
  }
  schedule_pump();
}

// Queues the replies to what has finished, as far as memory allows.
void Session::reply_finished() {
  finishing_ = true;
  size_t replied = 0;
  for (; replied < finished_reads_.size(); ++replied) {
    ReadOperation& operation = *finished_reads_[replied];
    if (!reply_read(operation)) break;
    (void)operation.take_buffer();
    free_reads_.push_back(&operation);
  }
  finished_reads_.erase(finished_reads_.begin(),
                        finished_reads_.begin() + static_cast<std::ptrdiff_t>(replied));
  replied = 0;
  while (replied < finished_operations_.size() && reply_operation(*finished_operations_[replied])) {
    --worker_operations_;
    ++replied;
  }
  finished_operations_.erase(finished_operations_.begin(),
                             finished_operations_.begin() + static_cast<std::ptrdiff_t>(replied));
  finishing_ = false;
}

bool Session::reply_read(ReadOperation& operation) {
  if (operation.result()) return reply_read_data(operation);
  if (!reply_error(operation.request(), WireError::kIo)) return false;
  log_failure(operation.request(), operation.result().error());
  return true;
}

// All headers lie in one buffer and all data in the operation's, so that the reply is queued whole
// or, when there is no memory for headers, not at all.
bool Session::reply_read_data(ReadOperation& operation) {
  const Request& request = operation.request();
  const ReplyWriter writer(handshake_.negotiated(), request);
  const ZeroRuns& runs = operation.holes();
  const auto holes = static_cast<size_t>(runs.end() - runs.begin());
  auto headers =
      host_.buffers().allocate((2 * holes + 1) * ReplyWriter::kMaxHeader, ByteBudget::Use::kSmall);
  if (!headers) {
    memory_wanted();
    return false;
  }
  Buffer data = operation.take_buffer();
  MutableByteSpan room(headers->data(), headers->capacity());
  const auto queue_header = [&](size_t size) {
    queue_.append(room.first(size));
    room = room.subspan(size);
  };
  const auto queue_data = [&](uint64_t from, uint64_t to) {
    if (from == to) return;
    queue_header(
        writer.put_data_header(room, request.offset + from, to - from, to == request.length));
    queue_.append(ByteSpan(data.data() + from, static_cast<size_t>(to - from)));
  };
  uint64_t at = 0;
  for (const ZeroRuns::Run& run : runs) {
    queue_data(at, run.offset);
    at = run.offset + run.length;
    queue_header(
        writer.put_hole(room, request.offset + run.offset, run.length, at == request.length));
  }
  queue_data(at, request.length);
  queue_.append_owner(*std::move(headers));
  queue_.append_owner(std::move(data));
  count(request, true);
  return true;
}

bool Session::reply_operation(const WorkerOperation& operation) {
  const Request& request = operation.request();
  if (operation.result()) {
    return request.command == Command::kCache ? reply_success(request) : reply_status(operation);
  }
  if (!reply_error(request, WireError::kIo)) return false;
  log_failure(request, operation.result().error());
  return true;
}

bool Session::reply_status(const WorkerOperation& operation) {
  const Negotiated& negotiated = handshake_.negotiated();
  const ReplyWriter writer(negotiated, operation.request());
  const BlockStatus& status = operation.status();
  size_t chunks = (negotiated.allocation ? 1u : 0u) + (negotiated.allocation_depth ? 1u : 0u);
  size_t extents = status.allocation.size() + status.depth.size();
  for (const BlockStatus::Bitmap& bitmap : status.bitmaps) extents += bitmap.extents.size();
  chunks += status.bitmaps.size();
  // One buffer for all chunks: the reply is queued whole or not at all.
  auto buffer = host_.buffers().allocate(
      chunks * ReplyWriter::kMaxHeader + extents * writer.status_extent_bytes(),
      ByteBudget::Use::kBulk);
  if (!buffer) {
    memory_wanted();
    return false;
  }
  const MutableByteSpan room(buffer->data(), buffer->capacity());
  size_t size = 0;
  const auto put = [&](uint32_t id, const std::vector<StatusExtent>& list) {
    size += writer.put_status(room.subspan(size), id, list, --chunks == 0);
  };
  if (negotiated.allocation) put(Negotiated::kAllocationId, status.allocation);
  if (negotiated.allocation_depth) put(Negotiated::kAllocationDepthId, status.depth);
  for (const BlockStatus::Bitmap& bitmap : status.bitmaps) put(bitmap.id, bitmap.extents);
  queue_.append(room.first(size));
  queue_.append_owner(*std::move(buffer));
  count(operation.request(), true);
  return true;
}

bool Session::reply_success(const Request& request) {
  const MutableByteSpan room = queue_.reserve(ReplyWriter::kMaxHeader);
  if (room.empty()) {
    memory_wanted();
    return false;
  }
  queue_.commit(ReplyWriter(handshake_.negotiated(), request).put_success(room));
  count(request, true);
  return true;
}

bool Session::reply_error(const Request& request, WireError error) {
  const std::string_view message = error == WireError::kPerm ? "the export is read-only"
                                   : error == WireError::kIo ? "cannot read the image"
                                                             : "invalid request";
  const MutableByteSpan room = queue_.reserve(ReplyWriter::kMaxError);
  if (room.empty()) {
    memory_wanted();
    return false;
  }
  queue_.commit(ReplyWriter(handshake_.negotiated(), request).put_error(room, error, message));
  count(request, false);
  return true;
}

void Session::log_failure(const Request& request, const Error& error) {
  host_.log().error(
      fmt::format("export \"{}\": {} bytes at offset {}: {}", printable(export_->name(), 80),
                  request.length, request.offset, error.to_string()),
      log_fields().request(request).error(error));
}

// Of this client, and its export once that is known.
EntryFields Session::log_fields() const {
  EntryFields fields;
  if (export_) fields.exported(export_->name());
  if (client_) return fields.client(*client_);
  return fields.peer(peer_of(socket_.get()));
}

}  // namespace underlay
