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

struct DirectLimits {
  // libdevmapper refuses tables beyond 50 MB, and the kernel takes a second for 100,000 targets.
  size_t targets = 50'000;
  // Each becomes a loop device, and its descriptor travels between processes (253 at most).
  size_t files = 128;
  // Of the disk that are looked at; what lies behind them goes to the server. An image of a few
  // kilobytes can state thousands of millions, by using one table again and again.
  uint64_t extents = 8'000'000;
};

// Maps the whole disk. Goes to the server: what is compressed, does not lie on whole sectors of its
// file, lies behind the end of the file, or has no file descriptor; and whatever exceeds `limits`:
// when there are too many runs, neighbours are joined into server runs, the shortest first. Holes
// of the file system are left in the file, where they read as zeros, too: no guest byte depends on
// what a file system says of its holes.
// Fails when the disk's metadata cannot be read. REQUIRES: limits.targets > 0.
Result<DirectMap> make_direct_map(const Disk& disk, const DirectLimits& limits = {});

}  // namespace underlay::thin
