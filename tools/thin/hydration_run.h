// One hydration: finds out what is to be copied, and copies it.
#pragma once

#include <optional>
#include <string>

#include "io/error.h"
#include "tools/common/progress.h"
#include "tools/thin/block_copier.h"
#include "tools/thin/host.h"
#include "tools/thin/registry_store.h"

namespace underlay::thin {

struct HydrateArguments {
  std::string name;
  std::optional<uint64_t> rate;  // bytes a second
  bool progress = false;         // also when standard error is no terminal
};

class HydrationRun {
 public:
  HydrationRun(const Host& host, HydrateArguments arguments)
      : host_(host), arguments_(std::move(arguments)), progress_(arguments_.progress) {}

  // Looks at the image and makes the device that is copied through. Fails when the image has
  // changed, and when the pool has no room. Locks the registry. REQUIRES: the volume is active.
  Result<void> prepare();
  // Copies until every block that the image has data in is the volume's own, and on disk. Locks the
  // registry for each batch only. A signal ends it between two batches: kUsage.
  Result<void> copy();
  // Removes what prepare() made.
  Result<void> close();

  // Fails unless the volume could do without its image now. REQUIRES: copy() was successful.
  Result<void> check_complete(const Registry& registry) const;

  const VolumeRecord& volume() const { return volume_; }
  uint64_t copied_bytes() const { return copied_bytes_; }

 private:
  Result<void> take_records(const Registry& registry);
  Result<void> check_records(const Registry& registry) const;
  Result<void> find_data();
  // The blocks that have to be copied, as the pool's metadata is now.
  Result<BlockRuns> left() const;
  Result<void> copy_all(BlockRuns blocks);
  Result<void> copy_batch(const BlockRuns& batch, BatchPace& pace);
  Result<void> check_pool(uint64_t blocks) const;
  void rest(std::chrono::microseconds pause) const;

  Host host_;
  HydrateArguments arguments_;
  VolumeRecord volume_;
  ImageRecord image_;
  PoolRecord pool_;
  BlockRuns data_;    // the image has data in these, as far as is known
  BlockRuns zero_;    // of those: read, and found to be zeros
  BlockRuns copied_;  // by this run
  uint64_t copied_bytes_ = 0;
  std::optional<BlockCopier> copier_;
  Progress progress_;
  std::chrono::steady_clock::time_point begun_;
};

}  // namespace underlay::thin
