// Text for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/error.h"

namespace underlay {

// "1.5G", as lsblk and lvs print sizes: powers of 1024, at most one digit behind the point.
std::string human_size(uint64_t bytes);

// "20G", "64k", "1024": a number of bytes with an optional suffix K, M, G or T (powers of 1024).
// kUsage naming `option`.
Result<uint64_t> parse_size(const std::string& text, const std::string& option);

// Lines of columns, each as wide as its widest cell, two spaces between them. The first row is the
// heading.
std::string aligned(const std::vector<std::vector<std::string>>& rows);

}  // namespace underlay
