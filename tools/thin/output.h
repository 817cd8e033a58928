// What commands print.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "io/error.h"
#include "tools/thin/host.h"

namespace underlay::thin {

// To standard output, over several lines. Bytes that are no UTF-8 (of paths) are replaced.
void print_json(const nlohmann::ordered_json& document);

// "underlay-thin: warning: LINE" on standard error.
void warn(const std::string& line);

// Prints the device that a command made: its path, or {"version": 1, "device": path}.
Result<void> report_device(const Host& host, const std::string& path);

}  // namespace underlay::thin
