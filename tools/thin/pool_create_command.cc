#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "io/unique_fd.h"
#include "tools/thin/block_device.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/output.h"
#include "tools/thin/pool_commands.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/pool_plan.h"
#include "tools/thin/pool_removal.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {
namespace {

// A sparse file that only root may read: guests' data will be in it.
Result<void> make_file(const std::string& path, uint64_t size) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.valid()) return in_file(fail_errno(errno, "making the pool's file"), path);
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0 || ::fsync(file.get()) != 0) {
    const int code = errno;
    ::unlink(path.c_str());
    return in_file(fail_errno(code, "making the pool's file {} bytes long", size), path);
  }
  return {};
}

Result<void> sync_folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return in_file(fail_errno(errno, "writing the folder to disk"), folder);
  }
  return {};
}

Result<void> make_files(const PoolPlan& plan) {
  TRY(make_file(plan.record.metadata, plan.metadata_size));
  auto made = make_file(plan.record.data, plan.data_size);
  if (made) made = sync_folder_of(plan.record.data);
  // Only what was made here; a file that somebody else has made meanwhile stays.
  if (!made) ::unlink(plan.record.metadata.c_str());
  return made;
}

// The step that makes the kernel's pool, formatted and durable.
Result<void> make_device(const PoolRecord& pool) {
  const PoolDevices devices = TRY(open_pool_devices(pool, /*formatted=*/false));
  TRY(dm_create(pool_table(pool, devices)));
  // A status that waits also commits the metadata.
  Result<void> committed;
  if (auto status = dm_status(pool.name, /*wait=*/true); !status) {
    committed = Failure(std::move(status).error());
  } else if (const auto formatted = has_thin_pool_superblock(devices.metadata_path); !formatted) {
    committed = Failure(formatted.error());
  } else if (!*formatted) {
    committed =
        in_file(fail(ErrorKind::kIo, "the kernel did not format it (see dmesg)"), pool.metadata);
  }
  if (committed) return {};
  Error error = std::move(committed).error();
  if (const auto removed = dm_remove(pool.name); !removed) {
    error.message += "; " + removed.error().to_string();
  }
  return Failure(std::move(error));
}

Step record_step(RegistryStore& store, const PoolRecord& pool) {
  return {.name = "record-pool",
          .words = fmt::format("# registry: pool {} is being made", pool.name),
          .run = [&store, pool]() { return write_pool(store, pool); },
          .undo = [&store, pool]() { return drop_pool(store, pool.name); }};
}

Step space_step(const PoolPlan& plan) {
  if (plan.record.on_files) {
    return {
        .name = "make-files",
        .words = fmt::format("umask 077; truncate -s {} {}; truncate -s {} {}", plan.metadata_size,
                             plan.record.metadata, plan.data_size, plan.record.data),
        .run = [plan]() { return make_files(plan); },
        .undo = [pool = plan.record]() { return erase_pool(pool); }};
  }
  return {.name = "zero-metadata",
          .words = erase_pool_words(plan.record),
          // The kernel formats metadata whose first block is zero.
          .run = [pool = plan.record]() { return zero_start(pool.metadata, kMetadataBlock); },
          .undo = {}};
}

Step device_step(const PoolRecord& pool) {
  return {.name = "create-pool",
          .words = activate_pool_words(pool),
          .run = [pool]() { return make_device(pool); },
          .undo = [pool]() -> Result<void> {
            TRY(deactivate_pool(pool));
            // A device's metadata is given back without a pool on it.
            return pool.on_files ? Result<void>() : erase_pool(pool);
          }};
}

Step ready_step(RegistryStore& store, PoolRecord pool) {
  pool.state = PoolState::kReady;
  return {.name = "commit-record",
          .words = fmt::format("# registry: pool {} is there", pool.name),
          .run = [&store, pool]() { return write_pool(store, pool); },
          .undo = {}};
}

}  // namespace

Result<void> pool_create_command(const Host& host, const PoolCreateArguments& arguments) {
  TRY(dm_check_targets({"thin-pool", "thin"}));
  RegistryStore store = TRY(open_pool_registry(host));
  const PoolPlan plan = TRY(plan_pool(arguments, store.get()));
  if (!plan.warning.empty()) warn(plan.warning);
  return perform(host, {record_step(store, plan.record), space_step(plan), device_step(plan.record),
                        ready_step(store, plan.record)});
}

}  // namespace underlay::thin
