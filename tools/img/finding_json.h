// How findings are told to programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "formats/inspection/finding.h"

namespace underlay::img {

std::string_view kind_name(Finding::Kind kind);

// What is no UTF-8 in the message stays: print_json() replaces it, and JSON escapes the rest.
// {"kind", "code", "message"}, and "offset" where there is one.
nlohmann::ordered_json finding_json(const Finding& finding);

}  // namespace underlay::img
