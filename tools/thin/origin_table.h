// The tables of origin devices. Pure. Devices are numbers, "MAJOR:MINOR".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"
#include "tools/thin/device_mapper.h"
#include "tools/thin/direct_map.h"

namespace underlay::thin {

// All of the disk from the nbd device.
std::vector<DmTarget> server_table(uint64_t sectors, const std::string& server);

// `files`: the device of each DirectRun::file. `server` may be "" when no run goes there.
// REQUIRES: every index of a run is below files.size().
std::vector<DmTarget> direct_table(const std::vector<DirectRun>& runs,
                                   const std::vector<std::string>& files,
                                   const std::string& server);

// What an origin's table says.
struct OriginShare {
  uint64_t file_sectors = 0, zero_sectors = 0, server_sectors = 0;
  std::vector<std::string> files;  // devices, each once
  std::string server;              // "" when none
  uint64_t sectors() const { return file_sectors + zero_sectors + server_sectors; }
};
// Fails when the table is not one of an origin.
Result<OriginShare> share_of(const std::vector<DmTarget>& targets);

}  // namespace underlay::thin
