#include "tools/thin/hydration_run.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tools/thin/image_plan.h"
#include "tools/thin/names.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/thin_pool.h"
#include "tools/thin/transaction.h"

namespace underlay::thin {
namespace {

// The second finds what the first has missed: nothing, unless something else unmaps blocks.
constexpr int kPasses = 3;
constexpr std::chrono::milliseconds kNap{20};  // after which a signal is noticed

}  // namespace

Result<void> HydrationRun::take_records(const Registry& registry) {
  volume_ = TRY(find_volume(registry, arguments_.name));
  if (is_pending(registry, volume_)) {
    return fail(ErrorKind::kUsage,
                "{}: its creation or removal was interrupted: run 'underlay-thin fsck'",
                volume_.name);
  }
  pool_ = *registry.pool(volume_.pool);
  image_ = *registry.image(volume_.image);
  return {};
}

Result<void> HydrationRun::check_records(const Registry& registry) const {
  const VolumeRecord* const now = registry.volume(volume_.name);
  if (now != nullptr && *now == volume_) return {};
  return fail(ErrorKind::kUsage, "{} was changed by another command meanwhile: run hydrate again",
              volume_.name);
}

// Of another server's export only the reading shows what is zero.
Result<void> HydrationRun::find_data() {
  std::vector<AllocatedRun> runs{{.start = 0, .sectors = image_.size / kSectorBytes}};
  if (!image_.is_remote()) {
    const ImagePlan plan = TRY(plan_image(choice_of(image_), PlanFor::kDirectMap));
    TRY(check_unchanged(image_, plan));
    if (plan.direct) runs = allocated_runs(plan.runs);
  }
  data_ = blocks_with_data(runs, pool_.block_sectors, volume_.sectors);
  return {};
}

Result<BlockRuns> HydrationRun::left() const {
  const std::string metadata = TRY(active_metadata_path(pool_.name));
  const auto mapped = TRY(pool_mapped_runs(pool_.name, metadata, volume_.thin_id));
  BlockRuns blocks = without(without(data_, mapped), zero_);
  // A block that was copied and is not mapped now, the guest has discarded. What it reads there is
  // nobody's promise, and copying it again and again would give it back what it threw away.
  if (pool_.discards == Discards::kUnmap) blocks = without(blocks, copied_);
  return blocks;
}

Result<void> HydrationRun::prepare() {
  const RegistryStore store = TRY(open_registry(host_));
  TRY(take_records(store.get()));
  TRY(find_data());
  if (!image_.is_remote()) {
    const BlockRuns blocks = TRY(left());
    TRY(check_pool(block_count(blocks)));
  }
  copier_.emplace(TRY(BlockCopier::open(volume_, image_, pool_.block_sectors)));
  return {};
}

Result<void> HydrationRun::copy() {
  begun_ = std::chrono::steady_clock::now();
  for (int pass = 0; pass < kPasses; ++pass) {
    BlockRuns blocks = TRY(left());
    if (blocks.empty()) return copier_->sync();
    TRY(copy_all(std::move(blocks)));
    TRY(copier_->sync());
  }
  if (TRY(left()).empty()) return {};
  return fail(ErrorKind::kIo,
              "{}: blocks that were copied are not mapped in pool {}; does something else change "
              "it? The volume keeps its image",
              volume_.name, pool_.name);
}

Result<void> HydrationRun::copy_all(BlockRuns blocks) {
  BatchPace pace(pool_.block_sectors * kSectorBytes, arguments_.rate);
  progress_.begin(block_count(blocks) * pool_.block_sectors * kSectorBytes);
  while (!blocks.empty()) {
    if (interrupted()) {
      progress_.end();
      return fail(ErrorKind::kUsage,
                  "interrupted: {} still reads {} bytes of its image; it goes on when run again",
                  volume_.name, block_count(blocks) * pool_.block_sectors * kSectorBytes);
    }
    const BlockRuns batch = take_front(blocks, pace.blocks());
    if (auto copied = copy_batch(batch, pace); !copied) {
      progress_.end();
      return copied;
    }
    progress_.add(block_count(batch) * pool_.block_sectors * kSectorBytes);
  }
  progress_.end();
  return {};
}

Result<void> HydrationRun::copy_batch(const BlockRuns& batch, BatchPace& pace) {
  const BlockRuns blocks = TRY(copier_->stage(batch));
  std::vector<MappedRun> zero = without(batch, blocks);
  zero.insert(zero.end(), zero_.begin(), zero_.end());
  zero_ = normalized(std::move(zero));
  if (blocks.empty()) return {};

  std::chrono::microseconds pause{0};
  {
    // Whoever else suspends or resumes the volume holds the registry's lock, too.
    const RegistryStore store = TRY(RegistryStore::open(host_.state_dir));
    TRY(check_records(store.get()));
    TRY(check_unchanged(image_));
    const uint64_t count = block_count(blocks);
    TRY(check_pool(count));
    pause = TRY(copier_->copy(blocks));
    pace.paused(count, pause);
    copied_bytes_ += count * pool_.block_sectors * kSectorBytes;
  }
  std::vector<MappedRun> copied = blocks;
  copied.insert(copied.end(), copied_.begin(), copied_.end());
  copied_ = normalized(std::move(copied));
  rest(pause);
  return {};
}

Result<void> HydrationRun::check_pool(uint64_t blocks) const {
  const PoolStatus status = TRY(pool_status(pool_.name));
  return check_room(status, blocks, pool_.name, pool_.block_sectors * kSectorBytes);
}

// The guest has the volume to itself for as long as it waited, and until the rate is kept.
void HydrationRun::rest(std::chrono::microseconds pause) const {
  using Clock = std::chrono::steady_clock;
  Clock::time_point until = Clock::now() + pause;
  if (arguments_.rate) {
    const std::chrono::duration<double> needed(static_cast<double>(copied_bytes_) /
                                               static_cast<double>(*arguments_.rate));
    until = std::max(until, begun_ + std::chrono::duration_cast<Clock::duration>(needed));
  }
  while (!interrupted() && Clock::now() < until) {
    std::this_thread::sleep_for(std::min<Clock::duration>(kNap, until - Clock::now()));
  }
}

Result<void> HydrationRun::close() {
  if (!copier_) return {};
  auto closed = copier_->close();
  copier_.reset();
  return closed;
}

Result<void> HydrationRun::check_complete(const Registry& registry) const {
  TRY(check_records(registry));
  TRY(check_unchanged(image_));
  const BlockRuns blocks = TRY(left());
  if (blocks.empty()) return {};
  return fail(ErrorKind::kIo, "{} still reads {} blocks of its image: run hydrate again",
              volume_.name, block_count(blocks));
}

}  // namespace underlay::thin
