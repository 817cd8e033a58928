// How large a LUKS (version 1) volume will be, as QEMU creates it.
#pragma once

#include "tools/img/image_size.h"

namespace underlay::img {

inline constexpr std::string_view kUsualLuksCipher = "aes-256";
inline constexpr std::string_view kUsualLuksMode = "xts";

// Bytes in front of the data: the header and the areas for the keys. kUsage for ciphers that QEMU
// does not know.
Result<uint64_t> luks_header_bytes(std::string_view cipher, std::string_view mode);

Result<ImageSize> luks_size(const std::vector<std::string>& options, const DiskToStore& disk);

}  // namespace underlay::img
