#include "server/read_operation.h"

#include <algorithm>
#include <cstring>

#include "server/limits.h"

namespace underlay {

ReadOperation::ReadOperation(Ring& ring, WorkerPool& workers, ReadOwner& owner)
    : ring_(ring), workers_(workers), owner_(owner) {
  for (Piece& piece : pieces_) piece.operation = this;
}

void ReadOperation::start(const Export& target, const Request& request, Buffer buffer, bool holes,
                          Memory memory) {
  export_ = &target;
  request_ = request;
  buffer_ = std::move(buffer);
  out_ = MutableByteSpan(buffer_.data(), static_cast<size_t>(request.length));
  holes_ = holes;
  retry_ = false;
  result_ = {};
  zeros_.clear();
  worker_start_ = out_.size();
  pieces_used_ = 0;

  pending_ = 1;  // this function itself: nothing is done before all parts have been started
  // The first look has made the kernel begin to read plain data: a second one is for nothing.
  const uint64_t begun = memory == Memory::kMissed ? start_piece(0) : 0;
  const uint64_t filled = fill_from_memory(begun);
  if (filled < out_.size()) start_worker(filled);
  part_done();
}

// From `at` on. Returns where it had to stop: the rest is for a worker. A failure is such a stop
// too, so that it is told only after a second try.
uint64_t ReadOperation::fill_from_memory(uint64_t at) {
  while (at < out_.size() && at < limits::kInlineCopy) {
    const size_t length = std::min(out_.size() - at, limits::kInlineCopy - at);
    zeros_.begin_part(at);
    const size_t done = export_->disk().read_from_memory(
        request_.offset + at, out_.subspan(at, length), holes_ ? &zeros_ : nullptr);
    at += done;
    if (done == length) continue;
    const uint64_t taken = start_piece(at);
    if (taken == 0) return at;
    at += taken;
  }
  return at;
}

// Lets the ring read what lies at `at`, if it is plain data in a file. Returns its length, or 0.
uint64_t ReadOperation::start_piece(uint64_t at) {
  const auto extent = export_->disk().map(request_.offset + at, out_.size() - at, MapFor::kReadNow);
  if (!extent || extent->kind != Extent::Kind::kData || pieces_used_ == kPieces) return 0;
  const auto fd = extent->source->fd();
  if (!fd) return 0;
  Piece& piece = pieces_[pieces_used_++];
  piece.source = extent->source;
  piece.offset = extent->source_offset;
  piece.out = out_.subspan(at, std::min<size_t>(extent->length, limits::kInlineCopy));
  ++pending_;
  ring_.read(*fd, piece.offset, piece.out, piece);
  export_->disk().note_read(*extent, piece.out.size());
  return piece.out.size();
}

void ReadOperation::piece_done(Piece& piece, int result) {
  if (result > 0 && static_cast<size_t>(result) < piece.out.size()) {
    piece.offset += static_cast<uint64_t>(result);
    piece.out = piece.out.subspan(static_cast<size_t>(result));
    ring_.read(*piece.source->fd(), piece.offset, piece.out, piece);
    return;
  }
  if (result <= 0) retry_ = true;
  part_done();
}

void ReadOperation::start_worker(uint64_t from) {
  worker_start_ = from;
  ++pending_;
  workers_.submit(worker_task_, export_->demand());
}

void ReadOperation::read_on_worker() {
  // The ring thread does not touch the runs any more.
  zeros_.begin_part(worker_start_);
  result_ = without_exceptions([&] {
    return export_->disk().read(request_.offset + worker_start_, out_.subspan(worker_start_),
                                holes_ ? &zeros_ : nullptr);
  });
  ring_.post(worker_done_);
}

void ReadOperation::part_done() {
  if (--pending_ > 0) return;
  if (retry_ && result_) {
    retry_ = false;
    zeros_.clear();
    start_worker(0);
    return;
  }
  owner_.read_done(*this);
}

}  // namespace underlay
