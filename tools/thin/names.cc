#include "tools/thin/names.h"

#include "tools/thin/device_mapper.h"

namespace underlay::thin {

Result<VolumeRecord> find_volume(const Registry& registry, const std::string& name) {
  const VolumeRecord* const volume = registry.volume(name);
  if (volume == nullptr) {
    return fail(ErrorKind::kNotFound, "{}: there is no volume of that name: see 'list'",
                printable(name, 120));
  }
  return *volume;
}

Result<PoolRecord> find_pool(const Registry& registry, const std::string& name) {
  const PoolRecord* const pool = registry.pool(name);
  if (pool == nullptr) {
    return fail(ErrorKind::kNotFound, "{}: there is no pool of that name: see 'pool list'",
                printable(name, 120));
  }
  return *pool;
}

Result<void> check_name_is_free(const Registry& registry, const std::string& name,
                                const char* what) {
  TRY(check_name(name, what));
  if (registry.volume(name) != nullptr || registry.pool(name) != nullptr) {
    return fail(ErrorKind::kUsage, "{}: there is a volume or pool of that name already", name);
  }
  if (const auto info = TRY(dm_info(name))) {
    return fail(ErrorKind::kUsage, "{}: there is a device of that name already (its UUID is '{}')",
                dm_path(name), printable(info->uuid, 80));
  }
  return {};
}

}  // namespace underlay::thin
