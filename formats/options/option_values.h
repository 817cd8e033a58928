// Values that qemu knows for options about writing and about its own I/O. They have no effect here,
// and are checked so that a typing error is found.
#pragma once

#include <initializer_list>
#include <string_view>

#include "io/error.h"

namespace underlay {

// Is `value` one of `known`? `option` is for the message. Fails with kUsage.
Result<void> check_one_of(std::string_view option, std::string_view value,
                          std::initializer_list<std::string_view> known);

// The same, of --cache, --aio, --discard and --detect-zeroes.
Result<void> check_cache_mode(std::string_view option, std::string_view value);
Result<void> check_aio_mode(std::string_view option, std::string_view value);
Result<void> check_discard_mode(std::string_view option, std::string_view value);
Result<void> check_detect_zeroes_mode(std::string_view option, std::string_view value);

}  // namespace underlay
