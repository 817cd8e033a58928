// Unpacks compressed clusters before a client asks for them: those behind a run of sequential
// reads, and the far half of one long read, so that several workers share in it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "io/ring.h"
#include "io/task.h"
#include "io/worker_pool.h"
#include "server/export.h"

namespace underlay {

// Who is told, on the ring thread, that nothing is read ahead any more.
class ReadAheadOwner {
 public:
  virtual ~ReadAheadOwner() = default;
  virtual void read_ahead_ended() = 0;
};

// Of one connection. All methods belong to the ring thread. Failures are dropped: the read itself
// meets them again, and tells.
class ReadAhead {
 public:
  // All outlive this.
  ReadAhead(Ring& ring, WorkerPool& workers, ReadAheadOwner& owner);
  // REQUIRES: stopped, not running().
  ~ReadAhead() = default;
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // A client reads; cheap for what is not sequential or not compressed. `target` is always the
  // same, and lives until stop() and while running(). REQUIRES: the request was validated.
  void note(const Export& target, uint64_t offset, uint64_t length);
  // A worker has begun with that read, and with no other of the client.
  void help(const Export& target, uint64_t offset, uint64_t length);

  // Begins nothing more until the next note().
  void stop();
  // When it becomes false, owner.read_ahead_ended() is called.
  bool running() const { return running_ > 0; }

  // Bytes that are unpacked behind the last read: the window doubles while sequential reads go on,
  // as far as Caches::read_ahead allows.
  static constexpr uint64_t kFirstWindow = 256 << 10;
  static constexpr uint64_t kMaxWindow = 4 << 20;

 private:
  // Unpacks one piece after the other on a worker; between them, others may go first.
  class Unpacker final : public Task {
   public:
    void run() override { ahead->unpack_piece(*this); }
    ReadAhead* ahead = nullptr;
    bool busy = false;  // the ring thread's
    class Done final : public Task {
     public:
      void run() override { unpacker->ahead->unpacker_done(*unpacker); }
      Unpacker* unpacker = nullptr;
    } done;
  };
  // Guest bytes that are still to be unpacked.
  struct Plan {
    const Disk* disk = nullptr;
    uint64_t next = 0;
    uint64_t end = 0;
    uint64_t piece = 1;  // bytes of a cluster
  };
  static constexpr size_t kUnpackers = 8;

  bool find_compressed(const Disk& disk);
  void grow_window(const Disk& disk);
  void start(Plan plan);
  void unpack_piece(Unpacker& unpacker);
  void unpacker_done(Unpacker& unpacker);

  Ring& ring_;
  WorkerPool& workers_;
  ReadAheadOwner& owner_;

  // The run of sequential reads.
  uint64_t run_end_ = 0;  // the furthest byte read
  unsigned run_reads_ = 0;
  uint64_t ahead_ = 0;    // up to here all is planned, or need not be
  uint64_t cluster_ = 1;  // bytes of the one at ahead_
  uint64_t window_ = 0;
  ByteBudget* budget_ = nullptr;  // that window_ was taken of

  std::array<Unpacker, kUnpackers> unpackers_;
  size_t running_ = 0;
  std::mutex mutex_;
  Plan plan_;  // under mutex_
};

}  // namespace underlay
