// One NBD read that could not be answered from memory at once.
#pragma once

#include <array>
#include <cstdint>

#include "formats/disk.h"
#include "io/buffer_pool.h"
#include "io/ring.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "server/export.h"
#include "server/request.h"

namespace underlay {

class ReadOperation;

// Who is told that an operation is done, on the ring thread.
class ReadOwner {
 public:
  virtual ~ReadOwner() = default;
  virtual void read_done(ReadOperation& operation) = 0;
};

// Fills a buffer with the bytes of a request: what is in memory at once, plain data through the
// ring, the rest on a worker. Reused for one request after the other; all methods belong to the
// ring thread.
class ReadOperation {
 public:
  // What the caller knows of the request's bytes.
  enum class Memory : uint8_t { kUnknown, kMissed };  // kMissed: some were not there just now

  // All outlive the operation.
  ReadOperation(Ring& ring, WorkerPool& workers, ReadOwner& owner);

  // Starts, and calls owner.read_done() once, maybe before it returns. `target` outlives the
  // operation's run. REQUIRES: buffer.capacity() >= request.length; the request was validated.
  void start(const Export& target, const Request& request, Buffer buffer, bool holes,
             Memory memory);

  const Request& request() const { return request_; }
  const Result<void>& result() const { return result_; }

  // After success: the parts that are zeros, in ascending order, offsets from the start of the
  // request; their bytes in the buffer are undefined.
  const ZeroRuns& holes() const { return zeros_; }
  Buffer take_buffer() { return std::move(buffer_); }

 private:
  // A read that the ring carries out.
  class Piece final : public Completion {
   public:
    void complete(int result) override { operation->piece_done(*this, result); }
    ReadOperation* operation = nullptr;
    const Source* source = nullptr;
    uint64_t offset = 0;
    MutableByteSpan out;
  };
  static constexpr size_t kPieces = 16;

  uint64_t fill_from_memory(uint64_t at);
  uint64_t start_piece(uint64_t at);
  void piece_done(Piece& piece, int result);
  void start_worker(uint64_t from);
  void read_on_worker();
  void part_done();

  Ring& ring_;
  WorkerPool& workers_;
  ReadOwner& owner_;
  MethodTask<&ReadOperation::read_on_worker> worker_task_{*this};
  MethodTask<&ReadOperation::part_done> worker_done_{*this};

  const Export* export_ = nullptr;
  Request request_;
  Buffer buffer_;
  MutableByteSpan out_;  // the request's bytes in buffer_
  bool holes_ = false;   // may zeros be noted instead of written?
  unsigned pending_ = 0;
  bool retry_ = false;  // a piece failed: a worker reads all once more, and its word is final
  Result<void> result_;
  ZeroRuns zeros_;

  uint64_t worker_start_ = 0;  // the worker reads from here to the end
  std::array<Piece, kPieces> pieces_;
  size_t pieces_used_ = 0;
};

}  // namespace underlay
