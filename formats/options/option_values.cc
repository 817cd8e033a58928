#include "formats/options/option_values.h"

#include <algorithm>

namespace underlay {

Result<void> check_one_of(std::string_view option, std::string_view value,
                          std::initializer_list<std::string_view> known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return {};
  return fail(ErrorKind::kUsage, "{}: \"{}\" is not one of: {}", option, printable(value, 80),
              fmt::join(known, ", "));
}

Result<void> check_cache_mode(std::string_view option, std::string_view value) {
  return check_one_of(option, value,
                      {"none", "off", "writeback", "writethrough", "directsync", "unsafe"});
}

Result<void> check_aio_mode(std::string_view option, std::string_view value) {
  return check_one_of(option, value, {"threads", "native", "io_uring"});
}

Result<void> check_discard_mode(std::string_view option, std::string_view value) {
  return check_one_of(option, value, {"ignore", "off", "unmap", "on"});
}

Result<void> check_detect_zeroes_mode(std::string_view option, std::string_view value) {
  return check_one_of(option, value, {"off", "on", "unmap"});
}

}  // namespace underlay
