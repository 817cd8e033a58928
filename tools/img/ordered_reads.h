// The bytes of a disk in order, read and unpacked by several threads ahead of the one who takes
// them.
//
//   disk.map() --one thread at a time--> parts --all threads--> read, unpacked --next()--> consumer
//                                          \____zeros: known, neither read nor stored____/
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "formats/disk.h"
#include "tools/img/read_plan.h"

namespace underlay::img {

struct DiskPart {
  uint64_t offset = 0;  // of the disk
  uint64_t length = 0;  // > 0
  uint64_t stored = 0;  // of these bytes, how many came out of files; the others are zeros
  ByteSpan bytes;       // all `length`; none when the whole part is zeros, proved by the image

  // What ReadSettings::work made of it.
  ByteSpan product;

  bool is_zero() const { return bytes.empty(); }
};

struct ReadSettings {
  // One for each processor, within OrderedReads::kMostThreads, and at least two: one may wait for a
  // device while another unpacks.
  static unsigned default_threads();

  // At most, > 0. There are as many as the consumer has to wait for: what only copies bytes out of
  // the page cache is no faster with more of them.
  unsigned threads = default_threads();
  // Where parts may begin and end, counted from the first byte that is read: a run of zeros of so
  // many bytes is a part of its own. Divides OrderedReads::kPart, or is a power of two up to
  // kLargestPart.
  uint64_t unit = 64 << 10;
  // How long parts with bytes are at least: a power of two up to kLargestPart. Long ones save
  // threads that wait for each other.
  uint64_t part = 512 << 10;  // OrderedReads::kPart
  // Done by the threads to each part with bytes, before it is handed out: fills `product`, which
  // has what it made of another part. `thread` is less than `threads`.
  using Work = std::function<Result<void>(unsigned thread, const DiskPart& part,
                                          std::vector<std::byte>& product)>;
  Work work{};
};

// Used by one thread.
class OrderedReads {
 public:
  // Parts with bytes are as long as this, so that devices have something to do, or as the image's
  // clusters, of which none is then unpacked by two threads at once.
  static constexpr uint64_t kPart = 512 << 10;
  static constexpr uint64_t kLargestPart = 2 << 20;
  // Of all parts that were read and not yet taken: twice what kMostThreads are busy with, and what
  // the consumer holds. What ReadSettings::work makes of them comes on top.
  static constexpr uint64_t kBufferBudget = 40 << 20;
  static constexpr unsigned kMostThreads = 16;
  // Parts that are read ahead, however few threads there are.
  static constexpr size_t kLeastAhead = 8;

  // Starts to read [offset, offset + length) of `disk`, which outlives this.
  // REQUIRES: offset + length <= disk.size().
  OrderedReads(const Disk& disk, uint64_t offset, uint64_t length, ReadSettings settings = {});
  // May be called at any time: what is being read is waited for, nothing more is read.
  ~OrderedReads();
  OrderedReads(const OrderedReads&) = delete;
  OrderedReads& operator=(const OrderedReads&) = delete;

  // The next part; nullopt behind the last one. Parts follow each other without a gap; all but the
  // last one (or the last before a failure) end at a multiple of the unit from the first byte.
  // Their bytes are valid until the next call. May block.
  //
  // Fails at the place where reading, mapping or the work failed, after all units before it were
  // handed out (of work: all parts), and from then on always the same. Fails with EINTR when
  // is_interrupted().
  Result<std::optional<DiskPart>> next();

 private:
  // For a part with bytes.
  struct Room {
    std::unique_ptr<std::byte[]> bytes;
    std::vector<std::byte> product;
  };
  struct Slot {
    bool is_ready = false;
    ReadPlan::Part part;         // length 0: nothing (more) before the end or the failure
    std::optional<Error> error;  // behind the part; nothing comes after it
    std::optional<Room> room;
  };

  static DiskPart part_in(const Slot& slot);
  bool add_thread();
  void release(Slot& slot);
  Room take_room();
  void wait_for(const Slot& slot, std::unique_lock<std::mutex>& lock);
  size_t most_ahead() const;
  void work(unsigned thread);
  Slot* take_part();
  Result<void> fill(Slot& slot, unsigned thread) const;
  Result<void> read_part(Slot& slot) const;

  const Disk& disk_;
  ReadSettings settings_;  // threads: used by the consumer alone; fewer when there are no more
  const uint64_t part_bytes_;

  std::mutex plan_mutex_;  // taken before mutex_
  ReadPlan plan_;          // under plan_mutex_

  std::mutex mutex_;  // of all that follows, but for the slots' contents while they are read
  std::condition_variable slot_is_free_;
  std::condition_variable slot_is_ready_;
  std::vector<Slot> slots_;  // part number n is in slots_[n % slots_.size()]
  std::vector<Room> rooms_;  // that are free: the last one is likely to be in the processor's cache
  uint64_t planned_ = 0;     // parts
  uint64_t released_ = 0;    // parts that the consumer is done with
  bool is_planned_out_ = false;
  bool is_stopping_ = false;
  bool consumer_has_part_ = false;

  std::vector<std::thread> threads_;
};

}  // namespace underlay::img
