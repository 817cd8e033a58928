// The operator's words about a chain, as options have them, for OpenOptions.
#pragma once

#include <string_view>

#include "formats/open_chain.h"
#include "io/error.h"

namespace underlay {

// CHILD=PATH, as --parent takes it. `option` is for the message. Fails with kUsage.
Result<ParentPath> parse_parent_path(std::string_view option, std::string_view value);

// "own" or "libyal", as --reader takes it. The same.
Result<ReaderChoice> parse_reader(std::string_view option, std::string_view value);

}  // namespace underlay
