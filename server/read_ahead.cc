#include "server/read_ahead.h"

#include <algorithm>

namespace underlay {
namespace {

// Reads that come in a slightly different order than they were asked for are still sequential.
constexpr uint64_t kDisorder = 32 << 10;
constexpr uint64_t kDisorderReads = 4;

constexpr unsigned kSequentialReads = 3;

// How far ahead of the reads compressed clusters are looked for, and in how many steps.
constexpr uint64_t kLookAhead = 16 << 20;
constexpr int kLookSteps = 4;

// Of metadata that is not in memory yet.
constexpr uint64_t kUnknownCluster = 64 << 10;

// Shorter reads cover hardly two clusters.
constexpr uint64_t kLongRead = 128 << 10;

}  // namespace

ReadAhead::ReadAhead(Ring& ring, WorkerPool& workers, ReadAheadOwner& owner)
    : ring_(ring), workers_(workers), owner_(owner) {
  for (Unpacker& unpacker : unpackers_) {
    unpacker.ahead = this;
    unpacker.done.unpacker = &unpacker;
  }
}

void ReadAhead::note(const Export& target, uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const uint64_t near = kDisorder + kDisorderReads * length;
  const bool follows = run_reads_ > 0 && offset + near >= run_end_ && offset <= run_end_ + near;
  if (!follows) {
    if (window_ > 0) stop();
    run_reads_ = 1;
    run_end_ = ahead_ = end;
    return;
  }
  if (end <= run_end_) return;
  run_end_ = end;
  if (++run_reads_ < kSequentialReads) return;
  run_reads_ = kSequentialReads;
  ahead_ = std::max(ahead_, end);
  if (ahead_ - end > window_ / 2) return;  // few large steps
  const Disk& disk = target.disk();
  if (!find_compressed(disk)) return;
  grow_window(disk);
  uint64_t planned = std::min(end + window_, disk.size());
  if (planned <= ahead_) return;
  if (planned < disk.size()) planned -= (planned - ahead_) % cluster_;  // whole clusters
  if (planned == ahead_) return;
  start({.disk = &disk, .next = ahead_, .end = planned, .piece = cluster_});
  ahead_ = planned;
}

// Moves ahead_ to where a compressed cluster begins. False when it found none.
bool ReadAhead::find_compressed(const Disk& disk) {
  for (int step = 0; step < kLookSteps && ahead_ < disk.size(); ++step) {
    const uint64_t length = std::min(kLookAhead, disk.size() - ahead_);
    const auto extent = disk.map(ahead_, length, MapFor::kReadNow);
    if (!extent && extent.error().kind != ErrorKind::kWouldBlock) return false;
    cluster_ = extent ? extent->cluster_length : kUnknownCluster;
    if (!extent) return true;
    const bool whole = extent->length == extent->cluster_length;  // else it is being read already
    if (extent->is_loaded() && whole) return true;
    ahead_ += extent->length;
  }
  return false;
}

void ReadAhead::grow_window(const Disk& disk) {
  budget_ = &disk.caches().read_ahead;
  const uint64_t wanted = std::clamp(2 * window_, kFirstWindow, kMaxWindow);
  if (wanted > window_ && budget_->take(wanted - window_, ByteBudget::Use::kBulk)) {
    window_ = wanted;
  }
}

void ReadAhead::help(const Export& target, uint64_t offset, uint64_t length) {
  if (length < kLongRead || running()) return;
  const Disk& disk = target.disk();
  // The worker begins at the front, and is to find the rest done when it gets there.
  const uint64_t middle = offset + length / 2;
  const auto extent = disk.map(middle, offset + length - middle, MapFor::kReadNow);
  if (!extent || !extent->is_loaded()) return;
  start({.disk = &disk, .next = middle, .end = offset + length, .piece = extent->cluster_length});
}

void ReadAhead::stop() {
  {
    const std::lock_guard lock(mutex_);
    plan_ = {};
  }
  if (window_ > 0) budget_->give_back(window_);
  window_ = 0;
  run_reads_ = 0;
}

void ReadAhead::start(Plan plan) {
  uint64_t pieces = 0;
  {
    const std::lock_guard lock(mutex_);
    // What the client has read in the meantime needs no unpacking; the rest is still wanted.
    uint64_t next = plan_.next;
    if (next < run_end_) next += (run_end_ - next) / plan_.piece * plan_.piece;
    if (next < plan_.end && plan_.end <= plan.next) plan.next = next;
    plan_ = plan;
    pieces = div_round_up(plan.end - plan.next, plan.piece);
  }
  const size_t most = std::min<uint64_t>({pieces, workers_.threads(), kUnpackers});
  for (Unpacker& unpacker : unpackers_) {
    if (running_ >= most) break;
    if (unpacker.busy) continue;
    unpacker.busy = true;
    ++running_;
    workers_.submit(unpacker, Urgency::kAhead);
  }
}

// On a worker.
void ReadAhead::unpack_piece(Unpacker& unpacker) {
  const Disk* disk = nullptr;
  uint64_t offset = 0;
  uint64_t length = 0;
  {
    const std::lock_guard lock(mutex_);
    disk = plan_.disk;
    offset = plan_.next;
    if (plan_.next < plan_.end) length = std::min(plan_.piece, plan_.end - plan_.next);
    plan_.next += length;
  }
  if (length == 0) return ring_.post(unpacker.done);
  (void)without_exceptions([&] { return disk->unpack(offset, length); });
  workers_.submit(unpacker, Urgency::kAhead);
}

void ReadAhead::unpacker_done(Unpacker& unpacker) {
  {
    const std::lock_guard lock(mutex_);
    // There may be a new plan by now.
    if (plan_.next < plan_.end) return workers_.submit(unpacker, Urgency::kAhead);
  }
  unpacker.busy = false;
  --running_;
  if (!running()) owner_.read_ahead_ended();
}

}  // namespace underlay
