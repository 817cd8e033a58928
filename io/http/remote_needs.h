// What a process in a sandbox needs of the system to go on reading from servers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay {

struct RemoteNeeds {
  std::vector<std::string> readable;  // files and folders that exist
  std::vector<uint16_t> ports;        // TCP, that connections lead to
};

// To read the objects, or those beneath the folders, `names` (remote_name.h). Of S3 stores, the
// source of credentials is made (AwsCredentialSource::of_process()). Blocks.
Result<RemoteNeeds> needs_of(const std::vector<std::string>& names);

}  // namespace underlay
