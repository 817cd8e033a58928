// Sizes as qemu-img prints and reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "io/error.h"

namespace underlay::img {

// "1 GiB", as qemu-img prints sizes: three significant digits.
std::string qemu_size(uint64_t bytes);

// Reads "64k", "1.5G", "512" as qemu-img does: suffixes b, k, M, G, T, P, E, powers of 1024. kUsage
// naming `option`.
Result<uint64_t> parse_qemu_size(std::string_view option, const std::string& text);

}  // namespace underlay::img
