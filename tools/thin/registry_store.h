// The registry on disk: one JSON file, replaced as a whole, under a lock.
#pragma once

#include <string>

#include "io/error.h"
#include "io/unique_fd.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

// The registry, locked for one process until this object ends.
class RegistryStore {
 public:
  // Creates `folder` (0700) when it is not there. Waits for another process that holds the lock, at
  // most a minute, and names it then.
  static Result<RegistryStore> open(const std::string& folder);

  const Registry& get() const { return registry_; }
  // Replaces the registry durably: when this returns without error the new one survives a power
  // loss; when it fails, or the process dies meanwhile, the file holds the old or the new one.
  Result<void> write(Registry next);

 private:
  RegistryStore(std::string folder, UniqueFd lock, Registry registry);

  std::string folder_;
  UniqueFd lock_;
  Registry registry_;
};

// What write() has not finished: of no meaning once nobody holds the lock.
std::string unfinished_registry(const std::string& folder);

// The registry as it is now, without the lock, for commands that only look. No file: empty.
Result<Registry> read_registry(const std::string& folder);

}  // namespace underlay::thin
