// What fsck looks at: the registry, and everything of this program that the kernel and the run
// folder have. Values only, so that the comparison needs no kernel.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/kernel_nbd.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/registry.h"
#include "tools/thin/thin_pool.h"

namespace underlay::thin {

// A device with this program's UUID prefix, or with the name of a pool or volume.
struct FsckDevice {
  DmInfo info;
  std::vector<DmTarget> table;  // empty: none is live
};

struct FsckPool {
  std::string name;
  std::optional<PoolStatus> status;                 // nullopt: not active
  std::optional<std::vector<uint32_t>> thin_ids{};  // nullopt: could not be read
};

struct FsckNbd {
  KernelNbdDevice device;
  std::string number;  // "43:0"
  std::vector<std::string> holders;
};

struct FsckImage {
  std::string id;
  std::string trouble;  // why its files are not what the registry says, "" when they are
  bool server_runs = false;
};

struct FsckState {
  Registry registry;
  std::vector<FsckDevice> devices;
  std::vector<FsckPool> pools;           // those of the registry
  std::vector<FsckNbd> nbd;              // whose backend identifier begins with "underlay-"
  std::vector<FsckImage> images;         // those of the registry
  std::vector<std::string> run_folders;  // ids in the run folder that look like an image's
  std::vector<std::string> stale_files;  // whole paths
};

}  // namespace underlay::thin
