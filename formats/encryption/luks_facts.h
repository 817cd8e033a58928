// What a LUKS header says without any key.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "io/bytes.h"
#include "io/error.h"

namespace underlay {

// By the names of qemu-img info's "encrypt". `header`: its first LuksHeader::kBytes or more. Also
// of ciphers that are not served; fails when it is no header of LUKS version 1.
Result<nlohmann::ordered_json> luks_facts(ByteSpan header);

}  // namespace underlay
