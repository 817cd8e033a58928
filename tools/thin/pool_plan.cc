#include "tools/thin/pool_plan.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "io/block_device_holders.h"
#include "io/unique_fd.h"
#include "tools/common/text.h"
#include "tools/thin/block_device.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/names.h"
#include "tools/thin/pool_devices.h"
#include "tools/thin/random_id.h"

namespace underlay::thin {
namespace {

constexpr uint64_t kMinBlock = 64 << 10;
constexpr uint64_t kMaxBlock = 1 << 30;
constexpr uint64_t kMaxFile = INT64_MAX;

Result<void> check_numbers(const PoolCreateArguments& arguments) {
  const uint64_t block = arguments.block_size;
  if (block < kMinBlock || block > kMaxBlock || block % kMinBlock != 0) {
    return fail(ErrorKind::kUsage,
                "pool '{}': a block size of {} bytes: it must be a multiple of 64K, at most 1G",
                arguments.name, block);
  }
  if (arguments.low_water_percent > 100) {
    return fail(ErrorKind::kUsage, "pool '{}': a low water mark of {} %: 100 % is the most",
                arguments.name, arguments.low_water_percent);
  }
  const bool on_files = !arguments.folder.empty();
  const bool on_devices = !arguments.data.empty() && !arguments.metadata.empty();
  if (on_files == on_devices || on_files != arguments.size.has_value()) {
    return fail(ErrorKind::kUsage,
                "pool '{}': give either --data and --metadata, or --file and --size",
                arguments.name);
  }
  return {};
}

// Claims the device for a moment, as device-mapper is going to: that fails also when who holds it
// cannot be seen from here.
Result<void> check_unclaimed(const std::string& path) {
  const auto holders = TRY(block_device_holders(path));
  if (!holders.empty()) {
    return in_file(fail(ErrorKind::kUsage, "is in use by {}", join_holders(holders)), path);
  }
  const UniqueFd device(::open(path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC));
  if (!device.valid()) return in_file(fail_errno(errno, "cannot be had for a pool"), path);
  return {};
}

Result<void> check_not_registered(const std::string& path, const Registry& registry) {
  const std::string number = TRY(block_device_number(path));
  for (const PoolRecord& pool : registry.pools) {
    if (pool.on_files) continue;
    for (const std::string& other : {pool.data, pool.metadata}) {
      const auto its = block_device_number(other);
      if (its && *its == number) {
        return in_file(fail(ErrorKind::kUsage, "belongs to pool '{}'", pool.name), path);
      }
    }
  }
  return {};
}

Result<void> check_device(const std::string& path, const Registry& registry, bool force) {
  if (TRY(block_device_read_only(path))) {
    return in_file(fail(ErrorKind::kUsage, "is read-only"), path);
  }
  TRY(check_unclaimed(path));
  TRY(check_not_registered(path, registry));
  const std::string content = TRY(block_device_content(path));
  if (!content.empty() && !force) {
    return in_file(fail(ErrorKind::kUsage,
                        "holds {}: --force takes it nonetheless, and destroys that", content),
                   path);
  }
  return {};
}

// Absolute, but with the links that the operator chose: names like those in /dev/disk/by-id stay
// when the machine boots again.
Result<std::string> absolute(const std::string& path) {
  std::error_code code;
  const auto result = std::filesystem::absolute(path, code);
  if (code) return in_file(fail_errno(code.value(), "finding the folder it is in"), path);
  return result.lexically_normal().string();
}

Result<void> plan_devices(const PoolCreateArguments& arguments, const Registry& registry,
                          PoolPlan& plan) {
  plan.record.data = TRY(absolute(arguments.data));
  plan.record.metadata = TRY(absolute(arguments.metadata));
  const std::string& metadata = plan.record.metadata;
  if (TRY(block_device_number(plan.record.data)) == TRY(block_device_number(metadata))) {
    return in_file(
        fail(ErrorKind::kUsage, "is data and metadata at once: a pool needs two devices"),
        metadata);
  }
  for (const std::string& path : {plan.record.data, metadata}) {
    TRY(check_device(path, registry, arguments.force));
  }
  plan.data_size = TRY(block_device_size(plan.record.data));
  plan.metadata_size = TRY(block_device_size(metadata));
  const uint64_t needed = metadata_bytes(plan.data_size, arguments.block_size);
  if (plan.metadata_size >= needed) return {};
  const std::string text = fmt::format(
      "has {} bytes, but the metadata of {} in blocks of {} may need {}: take a larger device, or "
      "a larger --block-size",
      plan.metadata_size, human_size(plan.data_size), human_size(arguments.block_size), needed);
  if (!arguments.force) {
    return in_file(fail(ErrorKind::kUsage, "{} (--force takes it nonetheless)", text), metadata);
  }
  plan.warning = metadata + ": " + text;
  return {};
}

Result<void> plan_files(const PoolCreateArguments& arguments, PoolPlan& plan) {
  std::error_code code;
  const std::filesystem::path folder = std::filesystem::canonical(arguments.folder, code);
  if (code) {
    return in_file(fail_errno(code.value(), "the folder for the pool's files"), arguments.folder);
  }
  plan.record.on_files = true;
  plan.record.data = folder / (arguments.name + ".data");
  plan.record.metadata = folder / (arguments.name + ".metadata");
  for (const std::string& path : {plan.record.data, plan.record.metadata}) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) {
      return in_file(fail(ErrorKind::kUsage, "is there already: remove it, or choose another name"),
                     path);
    }
  }
  if (*arguments.size > kMaxFile - arguments.block_size) {
    return fail(ErrorKind::kUsage, "--size {}: more than a file can have", *arguments.size);
  }
  const uint64_t blocks = (*arguments.size + arguments.block_size - 1) / arguments.block_size;
  plan.data_size = blocks * arguments.block_size;
  plan.metadata_size = metadata_bytes(plan.data_size, arguments.block_size);
  return {};
}

}  // namespace

Result<PoolPlan> plan_pool(const PoolCreateArguments& arguments, const Registry& registry) {
  TRY(check_numbers(arguments));
  TRY(check_name_is_free(registry, arguments.name, "pool"));
  PoolPlan plan;
  plan.record.name = arguments.name;
  plan.record.uuid = std::string(kDmUuidPrefix) + "pool-" + TRY(random_uuid());
  plan.record.block_sectors = static_cast<uint32_t>(arguments.block_size / kSectorBytes);
  plan.record.discards = arguments.discards;
  plan.record.state = PoolState::kCreating;
  if (arguments.folder.empty()) {
    TRY(plan_devices(arguments, registry, plan));
  } else {
    TRY(plan_files(arguments, plan));
  }
  if (plan.data_size < arguments.block_size) {
    return in_file(fail(ErrorKind::kUsage, "has {} bytes, less than one block of {}",
                        plan.data_size, arguments.block_size),
                   plan.record.data);
  }
  plan.record.low_water_blocks =
      low_water_blocks(plan.data_size, arguments.block_size, arguments.low_water_percent);
  return plan;
}

uint64_t low_water_blocks(uint64_t data_size, uint64_t block_size, unsigned percent) {
  const uint64_t blocks = data_size / block_size;
  return blocks / 100 * percent + blocks % 100 * percent / 100;
}

}  // namespace underlay::thin
