// Copies blocks from a volume's origin into the volume itself, beneath a guest that goes on using
// it.
//
//   staged: the batch is read from the origin into memory, while the guest runs;
//   copied: while the guest's device is suspended, each block is read through a second device of
//           the same thin id and written back whole, which provisions it.
//
// The second device, underlay-hydrate-NAME, has that memory for its origin, not the image: what the
// guest has provisioned meanwhile is read from the pool, the rest from memory, and a server that
// dies can never keep the guest suspended.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <span>

#include "io/error.h"
#include "tools/thin/hydration.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

std::string hydrate_device_name(const VolumeRecord& volume);  // "underlay-hydrate-NAME"
std::string hydrate_device_uuid(const VolumeRecord& volume);

class BlockCopier {
 public:
  // Makes the second device; one that a killed process left is replaced. kUsage when another
  // process is hydrating the volume. REQUIRES: volume and origin are active; the registry is
  // locked; one thread.
  static Result<BlockCopier> open(const VolumeRecord& volume, const ImageRecord& image,
                                  uint64_t block_sectors);
  BlockCopier(BlockCopier&&) noexcept;
  BlockCopier& operator=(BlockCopier&&) = delete;
  ~BlockCopier();  // leaves the device when close() was not called

  // Reads `batch` from the origin, waiting for its server as long as the kernel does. Returns the
  // blocks that are not all zeros: only those need to be copied. Drops what was staged before.
  // REQUIRES: at most BatchPace::kMaxBytes, or one block.
  Result<BlockRuns> stage(const BlockRuns& batch);

  // Suspends the volume, copies `blocks`, resumes it; returns for how long it was suspended. On
  // failure it is resumed, and every block has its right contents, copied or not. Synchronous reads
  // and writes: should this process be killed, it ends only after the one under way, so that none
  // comes after the guest has been resumed. REQUIRES: `blocks` are staged; the registry is locked,
  // so that nobody else resumes the volume.
  Result<std::chrono::microseconds> copy(const BlockRuns& blocks);

  // Makes what was copied survive a power loss.
  Result<void> sync();

  // Removes the second device.
  Result<void> close();

 private:
  struct State;
  explicit BlockCopier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Removes the second device that a killed process left; nothing when there is none. kUsage when
// a process is hydrating the volume.
Result<void> remove_hydrate_device(const std::string& name);

}  // namespace underlay::thin
