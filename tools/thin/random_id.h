// Names that nobody else has.
#pragma once

#include <string>

#include "io/error.h"

namespace underlay::thin {

Result<std::string> random_uuid();  // as the kernel makes them: 36 characters, lower case
Result<std::string> random_id();    // 8 hexadecimal digits

}  // namespace underlay::thin
