// Names of files, as qemu reads them.
#pragma once

#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay {

// Has `name` a protocol ("nbd://", "json:", "file:")? By qemu's rule: a ':' before its first '/'.
bool names_protocol(std::string_view name);

// Refuses (kDenied) a name in an image that has a protocol; `what` is the file's part, "backing
// file" say.
Result<void> refuse_protocol(std::string_view what, std::string_view name);

// The file that an operator's FILE names: "file:" is taken off, what io/http/remote_name.h knows is
// left; any other protocol is refused (kUnsupported), as is an empty name (kUsage).
Result<std::string> plain_file_name(std::string_view name);

}  // namespace underlay
