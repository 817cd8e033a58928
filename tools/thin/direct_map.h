// The direct map: which guest ranges lie uncompressed in a file, so that device-mapper can read
// them without the server. Pure: a disk's extents in, runs out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/disk.h"
#include "io/error.h"

namespace underlay::thin {

struct DirectRun {
  enum class Kind : uint8_t { kFile, kZero, kServer };
  Kind kind = Kind::kServer;
  uint64_t start = 0;    // sectors of the disk
  uint64_t sectors = 0;  // > 0
  unsigned file = 0;     // kFile: index into DirectMap::files
  uint64_t file_sector = 0;
  bool operator==(const DirectRun&) const = default;
};

struct DirectMap {
  std::vector<DirectRun> runs;  // cover [0, sectors) without gaps, neighbours merged
  std::vector<const Source*> files;
  uint64_t sectors = 0;
  uint64_t file_sectors = 0, zero_sectors = 0, server_sectors = 0;
  std::string reason;  // why something goes to the server, "" when nothing does

  bool needs_server() const { return server_sectors != 0; }
};

// At most this many targets: libdevmapper refuses tables beyond 50 MB, and the kernel takes a
// second for 100,000.
inline constexpr size_t kMaxDirectTargets = 50'000;

// Maps the whole disk. Runs that are not aligned to 512 bytes in their file, compressed, or behind
// the end of the file go to the server; when there are too many runs, the shortest neighbours are
// joined into server runs until they fit. Fails when the disk's metadata cannot be read.
Result<DirectMap> make_direct_map(const Disk& disk, size_t max_targets = kMaxDirectTargets);

}  // namespace underlay::thin
