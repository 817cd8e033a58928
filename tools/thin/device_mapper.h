// Device-mapper, through libdevmapper, in process. Knows nothing of pools or images.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay::thin {

struct DmTarget {
  uint64_t start = 0;  // sectors
  uint64_t sectors = 0;
  std::string type;    // "thin", "linear", "zero", ...
  std::string params;  // its arguments in a table; in a status, what the target says
  bool operator==(const DmTarget&) const = default;
};

struct DmInfo {
  std::string name;
  std::string uuid;
  unsigned major = 0;
  unsigned minor = 0;
  int32_t open_count = 0;
  bool suspended = false;
  bool read_only = false;
  bool has_table = false;           // a live one
  bool has_inactive_table = false;  // loaded, not yet resumed

  std::string number() const { return std::to_string(major) + ":" + std::to_string(minor); }
};

struct DmTable {
  std::string name;
  std::string uuid;  // begins with kDmUuidPrefix
  std::vector<DmTarget> targets;
  bool read_only = false;
  // Only this program uses it: udev must not probe it (blkid would read through nbd) nor show it.
  bool internal = false;
};

// All devices of this program have UUIDs that begin so: nothing else is ever touched.
inline constexpr const char* kDmUuidPrefix = "UNDERLAY-";

enum class Flush : uint8_t {
  kYes,    // the I/O that is under way ends, and a file system on the device is frozen
  kDrain,  // the I/O that is under way ends; nothing is frozen
  // What a target has not begun is put back (noflush, nolockfs). Not for a thin device that may
  // have to be given up on: interrupted while it waits, it fails its I/O from then on (Linux 6.1).
  kNo,
};

// Creates the device, loads its table and resumes it; on failure nothing is left. When it returns,
// /dev/mapper/NAME is there (with or without udev). A device of the same UUID that never got a
// table is replaced.
Result<void> dm_create(const DmTable& table);
// Loads another table, suspends, resumes. On failure the old table is live and the device resumed.
Result<void> dm_reload(const DmTable& table, Flush flush);
// Waits for the I/O that is under way (and with kYes writes back and freezes a file system on it).
Result<void> dm_suspend(const std::string& name, Flush flush);
Result<void> dm_resume(const std::string& name);
// Drops a table that was loaded and is not live.
Result<void> dm_clear(const std::string& name);
// Retries for a moment when something (udev) has it open. kUsage, naming the holders, when it is in
// use.
Result<void> dm_remove(const std::string& name);
Result<void> dm_message(const std::string& name, const std::string& message);

// nullopt when there is no such device.
Result<std::optional<DmInfo>> dm_info(const std::string& name);
Result<std::vector<DmTarget>> dm_table(const std::string& name);
// `wait`: false = noflush, which does not commit a pool's metadata and never blocks.
Result<std::vector<DmTarget>> dm_status(const std::string& name, bool wait);
// Names of the devices whose UUID begins with kDmUuidPrefix.
Result<std::vector<std::string>> dm_list();
// kUnsupported, with what to load, when the kernel lacks device-mapper or one of the targets.
Result<void> dm_check_targets(const std::vector<std::string>& types);

std::string dm_path(const std::string& name);  // "/dev/mapper/NAME"

// A table as `dmsetup create NAME --table '...'` takes it, for people.
std::string table_text(const std::vector<DmTarget>& targets);

}  // namespace underlay::thin
