// The files within a tar archive, without unpacking it.
#pragma once

#include <string>
#include <vector>

#include "io/source.h"

namespace underlay::tar {

struct Member {
  std::string name;     // as the archive has it, without "./" in front
  uint64_t offset = 0;  // of its bytes in the archive, all of them
  uint64_t size = 0;
  bool sparse = false;  // the bytes there are not its content as it is
};

inline constexpr size_t kMaxMembers = 10000;

// All regular files. Reads each header; may block. Fails for an archive that is damaged, has no
// end, or has more than kMaxMembers headers.
Result<std::vector<Member>> list_members(const Source& archive);

}  // namespace underlay::tar
