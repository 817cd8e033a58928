#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "io/unique_fd.h"
#include "tools/thin/activation.h"
#include "tools/thin/block_device.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/loop_device.h"
#include "tools/thin/names.h"
#include "tools/thin/output.h"
#include "tools/thin/pool_commands.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/pool_removal.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

Result<uint64_t> file_size(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return in_file(fail_errno(errno, "looking at the pool's file"), path);
  }
  return static_cast<uint64_t>(status.st_size);
}

// Never makes a file shorter.
Result<void> lengthen(const std::string& path, uint64_t size) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file.valid()) return in_file(fail_errno(errno, "opening the pool's file"), path);
  if (TRY(file_size(path)) >= size) return {};
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0 || ::fsync(file.get()) != 0) {
    return in_file(fail_errno(errno, "making the pool's file {} bytes long", size), path);
  }
  return {};
}

struct Growth {
  PoolRecord pool;
  ActiveDevices devices;
  uint64_t old_blocks = 0;
  uint64_t blocks = 0;
  uint64_t data_size = 0;  // bytes

  uint64_t block_size() const { return pool.block_sectors * kSectorBytes; }
};

Result<Growth> plan_growth(const PoolRecord& pool, const PoolGrowArguments& arguments) {
  if (arguments.size && !pool.on_files) {
    return fail(ErrorKind::kUsage,
                "pool '{}' is on devices: make {} larger, then grow the pool without --size",
                pool.name, pool.data);
  }
  auto devices = TRY(active_pool_devices(pool.name));
  Growth growth{.pool = pool, .devices = std::move(devices)};
  growth.old_blocks = TRY(pool_status(pool.name)).total_data;
  const uint64_t size =
      pool.on_files ? TRY(file_size(pool.data)) : TRY(block_device_size(growth.devices.data));
  constexpr uint64_t kMaxFile = INT64_MAX;
  if (arguments.size && *arguments.size > kMaxFile - growth.block_size()) {
    return fail(ErrorKind::kUsage, "--size {}: more than a file can have", *arguments.size);
  }
  // What is asked for is rounded up to a block, what is there is rounded down.
  growth.blocks = arguments.size ? (*arguments.size + growth.block_size() - 1) / growth.block_size()
                                 : size / growth.block_size();
  growth.data_size = growth.blocks * growth.block_size();
  if (growth.blocks <= growth.old_blocks) {
    return fail(ErrorKind::kUsage, "pool '{}' has {} bytes already; it would have {}: {}",
                pool.name, growth.old_blocks * growth.block_size(), growth.data_size,
                pool.on_files ? "--size takes its new size, and a pool cannot shrink"
                              : "make " + pool.data + " larger first");
  }
  return growth;
}

// No undo: the files stay longer, which takes no space, because the kernel may have begun to use
// what there is more of.
Step files_step(const Growth& growth) {
  const uint64_t metadata_size = metadata_bytes(growth.data_size, growth.block_size());
  return {.name = "grow-files",
          .words = fmt::format("truncate -s {} {}; truncate -s '>{}' {}; losetup -c {}; losetup -c "
                               "{}",
                               growth.data_size, growth.pool.data, metadata_size,
                               growth.pool.metadata, growth.devices.data, growth.devices.metadata),
          .run = [growth, metadata_size]() -> Result<void> {
            TRY(lengthen(growth.pool.data, growth.data_size));
            TRY(lengthen(growth.pool.metadata, metadata_size));
            TRY(grow_loop_device(growth.devices.data));
            return grow_loop_device(growth.devices.metadata);
          },
          .undo = {}};
}

// Without flush: the I/O of a full pool waits for exactly this.
Step reload_step(const Growth& growth) {
  DmTable table =
      pool_table(growth.pool, PoolDevices{.data_path = growth.devices.data,
                                          .metadata_path = growth.devices.metadata,
                                          .data_number = {},
                                          .metadata_number = {},
                                          .data_sectors = growth.blocks * growth.pool.block_sectors,
                                          .data_loop = std::nullopt,
                                          .metadata_loop = std::nullopt});
  // By path, as a person would type it, and as the kernel takes it as well.
  table.targets = {pool_target(growth.pool, growth.devices.metadata, growth.devices.data,
                               growth.blocks * growth.pool.block_sectors)};
  return {.name = "grow-pool",
          .words = fmt::format(
              "dmsetup reload {0} --table '{1}'; dmsetup suspend --noflush --nolockfs {0}; dmsetup "
              "resume {0}",
              growth.pool.name, table_text(table.targets)),
          .run = [table]() { return dm_reload(table, Flush::kNo); },
          .undo = {}};
}

// The low water mark for the same share of the larger pool.
uint64_t same_share(const Growth& growth) {
  const double factor = static_cast<double>(growth.blocks) / static_cast<double>(growth.old_blocks);
  return static_cast<uint64_t>(static_cast<double>(growth.pool.low_water_blocks) * factor);
}

Step record_step(RegistryStore& store, const Growth& growth) {
  return {.name = "commit-record",
          .words = fmt::format("# registry: the low water mark of pool {} is {} blocks",
                               growth.pool.name, growth.pool.low_water_blocks),
          .run = [&store, pool = growth.pool]() { return write_pool(store, pool); },
          .undo = {}};
}

}  // namespace

Result<void> pool_grow_command(const Host& host, const PoolGrowArguments& arguments) {
  RegistryStore store = TRY(open_pool_registry(host));
  TRY(find_pool(store.get(), arguments.name));
  TRY(bring_up_pool(host, store, arguments.name));
  const PoolRecord pool = TRY(find_pool(store.get(), arguments.name));
  Growth growth = TRY(plan_growth(pool, arguments));
  const uint64_t metadata_size = TRY(block_device_size(growth.devices.metadata));
  const uint64_t needed = metadata_bytes(growth.data_size, growth.block_size());
  if (!growth.pool.on_files && metadata_size < needed) {
    warn(
        fmt::format("{}: has {} bytes; the metadata of the larger pool may need {}: make it "
                    "larger and grow the pool again",
                    growth.pool.metadata, metadata_size, needed));
  }
  growth.pool.low_water_blocks = same_share(growth);
  std::vector<Step> steps;
  if (growth.pool.on_files) steps.push_back(files_step(growth));
  steps.push_back(reload_step(growth));
  steps.push_back(record_step(store, growth));
  return perform(host, steps);
}

}  // namespace underlay::thin
