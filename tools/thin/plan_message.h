// What the process that reads an image answers, as bytes. The reader trusts none of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"
#include "io/unique_fd.h"
#include "tools/thin/direct_map.h"
#include "tools/thin/registry.h"

namespace underlay::thin {

struct PlanMessage {
  std::string format;
  uint64_t size = 0;
  std::vector<FileStamp> files;
  std::vector<std::string> warnings;
  std::string reason;  // DirectMap::reason, or why there is no direct map
  bool direct = false;
  std::vector<size_t> descriptor_files;  // of each descriptor: index into `files`
  std::vector<DirectRun> runs;           // DirectRun::file: number of the descriptor
  bool operator==(const PlanMessage&) const = default;
};

std::string to_bytes(const PlanMessage& message);

// Fails unless the message has a format that there is, a whole number of sectors, at least one
// file, absolute paths or URLs, and runs that cover the disk exactly in order, with every index in
// range and every range below 2^63 bytes. Not whether the files are as it says.
Result<PlanMessage> plan_message_of(const std::string& bytes);

// Fails unless each descriptor that came with the message is the file that the message says, in
// the state that it says, open for reading only, and long enough for its runs.
Result<void> check_descriptors(const PlanMessage& message, const std::vector<UniqueFd>& fds);

}  // namespace underlay::thin
