// What the kernel does not remember: which image lies under which thin volume, how large a volume
// is, and where pools and images are. Values and their JSON; registry_store.h keeps them on disk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay::thin {

inline constexpr uint64_t kSectorBytes = 512;  // of device-mapper's sectors, whatever a disk has
inline constexpr const char* kBackendPrefix = "underlay-";

// How a file of an image looked when the first volume was made on it.
struct FileStamp {
  std::string path;  // absolute, no symbolic link in it; or the URL of an object on a server
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  std::string version{};  // of an object: Source::content_id(); "" of a file

  bool is_object() const { return !version.empty(); }
  bool operator==(const FileStamp&) const = default;
};

enum class DirectMode : uint8_t { kAuto, kAlways, kNever };

// As options and the JSON call them.
const char* name_of(DirectMode mode);

// An image (or an export of another server) that is attached, or that volumes lie on.
struct ImageRecord {
  std::string id;              // 8 hex digits, unique in the registry; names folders and devices
  std::string backend;         // kBackendPrefix + a UUID: the kernel's backend identifier
  std::string location;        // absolute path without symbolic links, URL, or an NBD URI
  std::string format;          // as formats/ names it; "" for a URI
  std::string backing_format;  // "" = as the image states
  std::vector<std::string> allow_paths;  // absolute
  std::vector<std::string> parents;      // CHILD=PATH; paths are absolute
  uint64_t size = 0;                     // bytes, a multiple of 512
  std::vector<FileStamp> files;          // all of the chain; empty for a URI
  unsigned connections = 1;
  unsigned recovery_timeout = 5;  // seconds
  unsigned dead_timeout = 300;    // seconds
  DirectMode direct = DirectMode::kAuto;
  bool keep = false;  // attached by name: stays when the last volume is gone

  // Another server's export.
  bool is_remote() const { return files.empty(); }
  // Does some of it lie on web servers or in stores? Our server reads it there.
  bool has_objects() const { return std::ranges::any_of(files, &FileStamp::is_object); }
  bool operator==(const ImageRecord&) const = default;
};

enum class Discards : uint8_t { kIgnore, kUnmap };
const char* name_of(Discards discards);

// A change of a pool's metadata that is under way: from `from` to `from + 1`.
struct Pending {
  enum class Kind : uint8_t { kCreate, kSnapshot, kRemove };
  Kind kind = Kind::kCreate;
  uint64_t from = 0;   // the pool's transaction id before
  std::string volume;  // its record is in the registry already (kCreate, kSnapshot), or still
  bool operator==(const Pending&) const = default;
};

// A pool that is being made or removed. A record that still says so when nothing holds the registry
// was left by a process that died: what there is of the pool has to go, then the record.
enum class PoolState : uint8_t { kReady, kCreating, kRemoving };

struct PoolRecord {
  std::string name;  // of the pool and of its device in /dev/mapper
  std::string uuid;  // of the device-mapper device
  // As the operator named them (stable names survive a boot), or files for loop devices.
  std::string data;
  std::string metadata;
  bool on_files = false;
  uint32_t block_sectors = 128;
  uint64_t low_water_blocks = 0;
  Discards discards = Discards::kIgnore;
  PoolState state = PoolState::kReady;
  uint64_t transaction_id = 0;  // the pool's own must be this, or this + 1 with `pending`
  uint32_t next_thin_id = 1;    // never used twice
  std::optional<Pending> pending;
  bool operator==(const PoolRecord&) const = default;
};

struct VolumeRecord {
  std::string name;  // of the volume and of its device in /dev/mapper
  std::string uuid;  // of the device-mapper device
  std::string pool;
  uint32_t thin_id = 0;
  uint64_t sectors = 0;
  std::string image;        // ImageRecord::id, "" = no external origin (any more)
  std::string snapshot_of;  // for people; the source may be gone
  bool operator==(const VolumeRecord&) const = default;
};

struct Registry {
  std::vector<PoolRecord> pools;
  std::vector<ImageRecord> images;
  std::vector<VolumeRecord> volumes;

  // nullptr when there is none.
  const PoolRecord* pool(const std::string& name) const;
  const ImageRecord* image(const std::string& id) const;
  const VolumeRecord* volume(const std::string& name) const;
  PoolRecord* pool(const std::string& name);
  ImageRecord* image(const std::string& id);
  VolumeRecord* volume(const std::string& name);
  bool operator==(const Registry&) const = default;
};

// True while the volume's creation (or snapshot) has not been committed, or its removal has begun.
bool is_pending(const Registry& registry, const VolumeRecord& volume);

// Does a volume lie on the image, active or not?
bool has_volumes(const Registry& registry, const std::string& image_id);

// Is it what ImageRecord::id may be?
bool is_image_id(const std::string& text);

// Human-readable JSON with a version, which parses back to an equal registry. Fails with
// kUnsupported when a path is no valid UTF-8.
Result<std::string> to_json(const Registry& registry);
// Fails with kMalformed when anything is missing, of the wrong type, out of range, or refers to
// what is not there; with kUnsupported for the version of a newer program. Unknown fields are
// errors: a registry must not lose what it does not know.
Result<Registry> registry_from_json(const std::string& text);

// Letters, digits and "+_.-", 1 to 100 characters, not beginning with "-" or ".", not beginning
// with "underlay-" (our own devices), not "control". kUsage otherwise. `what`: "volume", "pool".
Result<void> check_name(const std::string& name, const char* what);

}  // namespace underlay::thin
